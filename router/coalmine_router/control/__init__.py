"""The decisions: what the weights are, who changed them and why, and which proxies know it."""
