"""What ends the demo early."""


class StepFailed(Exception):
    """A step did not come to its end; one line for people."""
