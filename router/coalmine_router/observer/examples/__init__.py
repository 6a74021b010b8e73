"""The kept mismatches."""
