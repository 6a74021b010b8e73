"""What the router keeps on disk: its folder, its files, and what it says when a disk fails."""
