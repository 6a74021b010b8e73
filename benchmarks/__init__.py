"""What coalmine costs, beside what else one could run: `make bench`."""
