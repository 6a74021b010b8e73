"""Off the hot path: learns from the proxies' reports, calls shadows, compares, keeps evidence."""
