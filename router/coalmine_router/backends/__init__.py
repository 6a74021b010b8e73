"""The backends of a process: their addresses, and which of them gets a variant's next call."""
