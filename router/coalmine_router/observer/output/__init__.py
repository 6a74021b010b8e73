"""What was learnt, told: spans, metrics, a route's status."""
