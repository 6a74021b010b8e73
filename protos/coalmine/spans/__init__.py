"""Finished spans, and how they leave the process."""
