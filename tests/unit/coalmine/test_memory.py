import subprocess
import sys

import pytest

# Page faults while 600 kB are taken and given back, again and again, in a process of its own.
COUNTED = """
import resource, sys
from coalmine.memory import keep_large_blocks
if sys.argv[1] == "kept" and not keep_large_blocks():
    sys.exit("not glibc")
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [bytes(600_000) for _ in range(4)]
before = faults()
for _ in range(200):
    blocks = [bytes(600_000) for _ in range(4)]
print(faults() - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", COUNTED, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is tuned")
def test_large_blocks_are_not_faulted_in_anew_for_every_message() -> None:
    assert faults("kept") * 3 < faults("left alone")
