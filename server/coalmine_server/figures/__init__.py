"""What is counted, and the two forms in which it is told: Prometheus and ModelStatistics."""
