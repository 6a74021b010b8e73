"""The backends of a process: their addresses, and who of them gets a variant's next call."""
