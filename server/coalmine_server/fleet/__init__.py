"""Several processes on one port: who starts them, and how they stay alike."""
