"""The gRPC front: what callers send becomes calls of the services, and errors become status."""
