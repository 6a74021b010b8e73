"""The verbs `coalmine server …`, `coalmine package` and their options."""
