"""Copies of requests, and how they are sent: bounded, and counted."""
