"""The inference server: one request, front to back."""
