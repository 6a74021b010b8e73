"""The exit codes of every program and process of ours."""

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
# What was asked for is wrong, and would be wrong again.
EXIT_CANNOT_START: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143
