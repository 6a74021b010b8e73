"""How many comparisons a second one control process makes: `python -m benchmarks.observer_rate`.

It is handed reports as a proxy would hand them over, calls a shadow for each, and compares: first
never more than it keeps up with, then twice as many. Whoever reports and the shadow share the other
core, so that the control process has one to itself.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import uvloop

from benchmarks import results
from benchmarks.messages import answer
from benchmarks.report_feed import Feed, Phase
from benchmarks.results import row
from benchmarks.shadow_stage import LIVE, ROUTE, Shadow
from benchmarks.started import line, python

ROUNDS = 5
SECONDS = 5.0

_WARM_S = 2.0


@contextlib.contextmanager
def control(folder: Path, shadow: Shadow) -> Iterator[tuple[str, int]]:
    """Yield the address and the pid of a control process, alone."""
    config = folder / "observer.yaml"
    config.write_text(_written(folder, shadow))
    environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    command = ("coalmine_router", "control", "--config", str(config))
    with python(*command, environment=environment) as process:
        yield json.loads(line(process))["control"], process.pid


def _written(folder: Path, shadow: Shadow) -> str:
    names = ("stable", LIVE)
    return json.dumps(
        {
            "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
            "http": "127.0.0.1:0",
            "backends": {name: {"targets": [shadow.address]} for name in names},
            "routes": [
                {
                    "name": ROUTE,
                    "match": {"model": ROUTE},
                    "variants": {name: {"backend": name} for name in names},
                    "shadows": {LIVE: 100},
                }
            ],
        }
    )


async def _measured(
    address: str, pid: int, rounds: int, seconds: float
) -> list[tuple[Phase, Phase]]:
    """Return by round what it did as fast as it could, and when it was handed twice as many."""
    found = []
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
        feed = Feed(channel, pid)
        feeding = tasks.create_task(feed.run())
        await asyncio.sleep(_WARM_S)
        for number in range(rounds):
            print(f"bench: observer: round {number + 1}, process {pid}", file=sys.stderr)
            feed.rate = 0.0
            await asyncio.sleep(_WARM_S)
            kept_up = await feed.phase(seconds)
            feed.rate = 2 * kept_up.rate
            await asyncio.sleep(_WARM_S)
            found.append((kept_up, await feed.phase(seconds)))
        feeding.cancel()
    return found


def section(rounds: int = ROUNDS, seconds: float = SECONDS) -> str:
    """Return the table, once all was measured."""
    shadow = Shadow(answer())
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stack.callback(shadow.end)
        shadow.begin()
        address, pid = stack.enter_context(control(Path(name), shadow))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_measured(address, pid, rounds, seconds))
    return _text(found)


def _text(found: Sequence[tuple[Phase, Phase]]) -> str:
    titles = (
        *("reports", "a second", "comparisons/s, by round", "CPU µs each", "cores"),
        *("dropped", "left out"),
    )
    rows = (
        row(*titles),
        row(*("---" for _ in titles)),
        _row("as many as it keeps up with", [kept_up for kept_up, _ in found]),
        _row("twice as many", [doubled for _, doubled in found]),
    )
    table = "\n".join(rows)
    return f"""## Observer, small answers, shadow at 100 %

Made by `python -m benchmarks.observer_rate`: one control process gets reports as from a proxy, in
{len(found)} rounds that alternate. The figures are medians. A comparison is all of it: the process
reads the report, calls the shadow, compares both answers, and adds evidence and verdict. "Dropped"
are copies for which the shadow's queue had no room. "Left out" are answers that could not be
compared in time.

{table}
"""


def _row(name: str, phases: Sequence[Phase]) -> str:
    by_round = ", ".join(f"{each.rate:.0f}" for each in phases)
    return row(
        name,
        f"{statistics.median(each.offered_rate for each in phases):.0f}",
        f"**{statistics.median(each.rate for each in phases):.0f}** ({by_round})",
        f"{statistics.median(each.cpu_us for each in phases):.0f}",
        f"{statistics.median(each.cores for each in phases):.2f}",
        f"{statistics.median(each.share('dropped') for each in phases):.0%}",
        f"{statistics.median(each.share('left_out') for each in phases):.0%}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each phase")
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    text = section(asked.rounds, asked.seconds)
    return results.tell(text, dry=asked.dry)


if __name__ == "__main__":
    sys.exit(main())
