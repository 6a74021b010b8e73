"""Which device an instance runs on. Pure."""

from typing import Final

from coalmine.errors import StartError

CPU: Final = "cpu"
AUTO: Final = "auto"

_CUDA: Final = "cuda"


def device_of(asked: str, *, instance: int, cuda_count: int) -> str:
    """Return the device for the `instance`-th thread of a version: cpu or cuda:N.

    `asked` is auto (the CUDA devices in turn, cpu where there are none), cpu, cuda (the first) or
    cuda:N. Raises StartError for one that isn't there.
    """
    if asked == CPU or (asked == AUTO and not cuda_count):
        return CPU
    if asked == AUTO:
        return f"{_CUDA}:{instance % cuda_count}"
    number = int(asked.partition(":")[2] or 0)
    if number >= cuda_count:
        there = f"only {cuda_count}" if cuda_count else "none"
        raise StartError(f"device '{asked}' is not there: of CUDA devices there are {there}")
    return f"{_CUDA}:{number}"
