"""`coalmine status`, and waiting for a verdict."""
