"""A request out of bytes, and an answer into bytes."""
