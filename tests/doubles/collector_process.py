"""A collector in a process of its own, which can be killed and started again where it was.

As a program, `python -m tests.doubles.collector_process FILE ADDRESS`: tells its endpoint, and adds
each span that comes to FILE, on a line of its own, before it acknowledges it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.doubles.otlp_receiver import OtlpReceiver, ReceivedSpan

_ROOT = Path(__file__).parents[2]


class CollectorProcess:
    """`start` it, `kill` it, and start it again: it listens at the same `endpoint`."""

    def __init__(self, file: Path) -> None:
        self.endpoint = ""
        self._file = file
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        address = self.endpoint.removeprefix("http://") or "127.0.0.1:0"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.collector_process", str(self._file), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, f"the collector did not start at {address}"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def spans(self) -> list[ReceivedSpan]:
        """Return what came, each span once; events and links are left out."""
        found = {each.span_id: each for each in _read(self._file)}
        return list(found.values())


def _read(file: Path) -> Iterator[ReceivedSpan]:
    for line in file.read_text().splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # it was killed in the middle of it
            continue
        yield ReceivedSpan(**{**said, "events": (), "links": ()})


def _main(file: Path, address: str) -> None:
    with file.open("a") as written:
        # Behind a line that was begun and never ended.
        written.write("\n")

        def take(spans: Sequence[ReceivedSpan]) -> None:
            written.write("".join(f"{json.dumps(asdict(each))}\n" for each in spans))
            written.flush()

        with OtlpReceiver(address, take=take) as receiver:
            print(receiver.endpoint, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
