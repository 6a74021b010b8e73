"""Requests read from bytes, and answers written as bytes."""
