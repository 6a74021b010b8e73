"""Requests into batches: the queue, the plan, the workers."""
