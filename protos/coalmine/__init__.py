"""The contract: what both ends of a socket agree on."""
