"""`coalmine mismatches`: the kept mismatches of a route, shown and exported."""
