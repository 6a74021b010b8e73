"""What ends the demo early."""

from typing import Any


class StepFailed(Exception):
    """A step did not come to its end; one line for people."""


def step_failures(group: BaseExceptionGroup[Any]) -> list[StepFailed]:
    """Return the errors in a group of groups."""
    found: list[StepFailed] = []
    for error in group.exceptions:
        found.extend(step_failures(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
