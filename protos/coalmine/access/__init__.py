"""Who may call, and how a caller reaches a server."""
