"""How the router's processes and its operators talk to each other."""
