"""The backends of a proxy: their addresses, and who of them gets a variant's next call."""
