"""What each gRPC port of ours offers beside its own service."""
