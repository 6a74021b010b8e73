"""`coalmine demo`: real models, real data and real processes on one machine."""
