"""What runs a model's file: an interface, and the formats that have it."""
