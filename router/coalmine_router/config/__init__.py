"""Reads router.yaml: pydantic checks the file, and the router gets frozen values."""
