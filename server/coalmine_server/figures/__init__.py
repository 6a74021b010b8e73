"""The counters of the server, and the two forms that show them: /metrics and ModelStatistics."""
