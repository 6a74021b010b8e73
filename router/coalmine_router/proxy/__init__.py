"""The hot path: assign, forward, reply, report."""
