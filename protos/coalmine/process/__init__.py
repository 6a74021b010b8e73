"""How a process of ours lives: from its start to its exit code."""
