"""What two answers have in common: the rules, and what they find. Pure but for the processes."""
