"""What comparisons and requests add up to, and the verdict that it bears."""
