"""`coalmine infer`: inputs, requests and answers."""
