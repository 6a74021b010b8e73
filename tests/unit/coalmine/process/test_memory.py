import subprocess
import sys

import pytest

# Page faults while 600 kB are taken and given back, again and again, in a process of its own.
COUNTED = """
import resource, sys
from coalmine.process.machine import keep_large_blocks
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


# Megabytes that are freed but lie below one that is not: only trimming gives them back.
GIVEN_BACK = """
import os, sys
from pathlib import Path
from coalmine.process.machine import give_memory_back, keep_large_blocks
def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
keep_large_blocks()
blocks = [bytes(b"x") * 1_000_000 for _ in range(60)]
last = bytes(b"x") * 1_000_000
del blocks
before = resident()
if not give_memory_back():
    sys.exit("not glibc")
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone can be asked")
def test_what_is_free_is_given_back_to_the_system_when_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 50_000_000
