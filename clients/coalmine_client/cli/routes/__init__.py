"""The verbs that show routes and their trials, and that change weights."""
