"""The gates of a verdict."""
