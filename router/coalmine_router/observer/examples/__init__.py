"""Examples of mismatches that are kept."""
