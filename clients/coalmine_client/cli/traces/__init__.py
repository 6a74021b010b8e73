"""`coalmine traces`: trace files, chosen and shown."""
