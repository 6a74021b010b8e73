"""Compares two answers: its rules, its results, and the processes that do it."""
