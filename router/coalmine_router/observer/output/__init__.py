"""Shows what the observer knows: as spans, metrics and a route's status."""
