"""What the commands of server, router and client have in common."""
