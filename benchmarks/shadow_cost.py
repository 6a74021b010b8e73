"""What a shadow costs those who are answered: `python -m benchmarks.shadow_cost`.

The same load again and again, by turns without a shadow and with one at 100 % that answers, hangs,
or is dead. The load is far from what the machine can do, and at a fixed rate: on two cores a loop
that asks as fast as it is answered would show how cores are shared, not what waits for what.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from benchmarks.load import Load, Measured, h2load_missing, run
from benchmarks.messages import answer, request
from benchmarks.results import row
from benchmarks.shadow_stage import DEAD, HANGING, LIVE, NOBODY, Copied, Stage, stage

RATE = 200
SECONDS = 6
ROUNDS = 7

_CONCURRENCY = 64
_TITLES = (
    *("what", "p50 ms", "ratio", "p99 ms", "ratio, by round", "at most"),
    *("proxy, CPU µs", "control, CPU µs", "copies compared", "copies dropped"),
)


@dataclass(frozen=True)
class Condition:
    """Who gets the copies, and by what factor p99 may be longer for it; None: it is the measure."""

    name: str
    variant: str
    p99_factor_max: float | None


CONDITIONS = (
    Condition("no shadow", NOBODY, None),
    Condition("shadow at 100 %", LIVE, 1.25),
    Condition("shadow at 100 %, hanging", HANGING, 1.10),
    Condition("shadow at 100 %, dead", DEAD, 1.10),
)


@dataclass(frozen=True)
class Seen:
    """One run under one condition."""

    measured: Measured
    copied: Copied


Rounds = dict[Condition, list[Seen]]


def section(rounds: int = ROUNDS, *, rate: int = RATE, seconds: float = SECONDS) -> str:
    """Return the table, once all was measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = Load.of(
            request(),
            folder,
            requests=int(rate * seconds),
            concurrency=_CONCURRENCY,
            rate=rate,
        )
        with stage(answer(), folder) as there:
            found: Rounds = {each: [] for each in CONDITIONS}
            for number in range(rounds):
                for condition in _in_turn(number):
                    print(f"bench: shadow: round {number + 1}: {condition.name}", file=sys.stderr)
                    found[condition].append(_seen(there, condition, load))
    return _text(found, rounds, load)


def _in_turn(number: int) -> Sequence[Condition]:
    """Return the conditions in another order each round: none always comes behind the same one."""
    first = number % len(CONDITIONS)
    return CONDITIONS[first:] + CONDITIONS[:first]


def _seen(there: Stage, condition: Condition, load: Load) -> Seen:
    before = there.copied()
    with there.shadowed_by(condition.variant):
        measured = run(load, there.data, there.parts, len(answer()))
    return Seen(measured, there.copied().since(before))


# ---------------------------------------------------------------- what is said


def _text(found: Rounds, rounds: int, load: Load) -> str:
    rows = "\n".join(_row(condition, found) for condition in CONDITIONS)
    return f"""## Shadow, small, FP32 [1,64], {load.rate} requests/s

Made by `python -m benchmarks.shadow_cost`: one router with one proxy, {rounds} rounds that
alternate, {load.requests:,} requests in each. The figures are medians. Times are those of callers,
who get the primary's answer. No call failed. Ratios are to "no shadow" of the same round.

{row(*_TITLES)}
{row(*("---" for _ in _TITLES))}
{rows}

{_two_cores(found)}
"""


def _row(condition: Condition, found: Rounds) -> str:
    runs, floor = found[condition], found[CONDITIONS[0]]
    p50 = _ratios([each.measured.p50_ms for each in runs], [each.measured.p50_ms for each in floor])
    p99 = _ratios([each.measured.p99_ms for each in runs], [each.measured.p99_ms for each in floor])
    by_round = ", ".join(f"{ratio:.2f}" for ratio in p99)
    most = condition.p99_factor_max
    cells = (
        condition.name,
        f"{statistics.median(each.measured.p50_ms for each in runs):.2f}",
        f"{statistics.median(p50):.2f}",
        f"{statistics.median(each.measured.p99_ms for each in runs):.2f}",
        f"**{statistics.median(p99):.2f}** ({by_round})",
        f"{most:.2f}" if most else "",
        f"{_cpu_us(runs, 'proxy'):.0f}",
        f"{_cpu_us(runs, 'control'):.0f}",
        _share(sum(each.copied.compared for each in runs), runs),
        _share(sum(each.copied.dropped for each in runs), runs),
    )
    return row(*cells)


def _ratios(values: Sequence[float], floor: Sequence[float]) -> list[float]:
    return [value / least for value, least in zip(values, floor, strict=True)]


def _cpu_us(runs: Sequence[Seen], part: str) -> float:
    return statistics.median(each.measured.cpu_us[part] for each in runs)


def _share(count: int, runs: Sequence[Seen]) -> str:
    offered = sum(each.copied.offered for each in runs)
    return f"{count / offered:.0%}" if offered else ""


def _two_cores(found: Rounds) -> str:
    """Return what the figures mean where all of it shares the machine's cores."""
    alone, live = (
        sum(_cpu_us(found[condition], part) for part in ("proxy", "control"))
        for condition in CONDITIONS[:2]
    )
    return f"""Callers, proxy, control process, backend and shadow share {os.cpu_count()} cores.
At this rate a core is free when a request comes. So the times show what waits for what. They do not
show that a shadow is free. With a shadow, proxy and control take {live:.0f} µs of CPU a request
instead of {alone:.0f}. The shadow takes its own besides. On a full machine, callers would wait for
that."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run")
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second")
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    if h2load_missing():
        print("bench: h2load is missing; apt-get install nghttp2-client", file=sys.stderr)
        return 2
    text = section(asked.rounds, rate=asked.rate, seconds=asked.seconds)
    return results.tell(text, dry=asked.dry)


if __name__ == "__main__":
    sys.exit(main())
