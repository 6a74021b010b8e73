"""`make soak`: steady load, one fault after the other, and a table of what failed.

Exit code 0: no request failed but those in flight on connections to a proxy that was killed, after
each fault all was well again, and no process of the router holds much more memory than before.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.soak.faults import FAULTS, Fault, nothing
from tests.soak.report import as_json, show
from tests.soak.stage import Stage, stage
from tests.soak.tally import Outcome, Soaked

_NO_FAULT = Fault("none", "no fault", nothing)
_NO_FAULT_S = 10.0
# Of a fault's time, the part in which it does harm; as long a stop as 30 s of a minute.
_HARM = 0.5
_WELL_S = 60.0
_WIDTH = 150  # in a file


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    faults = [each for each in FAULTS if each.name in (asked.only or [each.name])]
    each_s = asked.minutes * 60 / len(faults)
    console = Console(stderr=asked.json, width=None if sys.stdout.isatty() else _WIDTH)
    with tempfile.TemporaryDirectory(prefix="coalmine-soak-") as folder:
        good = soak(Path(asked.keep or folder), faults, each_s, asked, console)
    return 0 if good else 1


def soak(
    folder: Path,
    faults: Sequence[Fault],
    each_s: float,
    asked: argparse.Namespace,
    console: Console,
) -> bool:
    """Do the faults, `each_s` seconds each; print what came of them; return whether all is good."""
    outcomes, memory = [], []
    with stage(folder, asked.callers, asked.rate) as running:
        console.print(f"soak: {len(faults)} faults of {each_s:.0f} s, in {folder}")
        trouble = _until_well(running)
        running.load.tally()
        for fault in (_NO_FAULT, *faults):
            lasts_s = min(each_s, _NO_FAULT_S) if fault is _NO_FAULT else each_s
            outcomes.append(_outcome(running, fault, lasts_s, trouble, console))
            memory.append(running.rss_mib())
            trouble = ""
    # After the first fault, where others follow; else after none.
    seen = Soaked(outcomes, memory[min(1, len(memory) - 2)], memory[-1])
    show(console, seen)
    if asked.json:
        print(json.dumps(as_json(seen)))
    return seen.is_good


def _outcome(stage: Stage, fault: Fault, each_s: float, trouble: str, console: Console) -> Outcome:
    """Do one fault; return what was seen until all was well again, `each_s` at least.

    `trouble` is what was not well before it.
    """
    began_s = time.monotonic()
    kill = None
    try:
        kill = fault.harm(stage, each_s * _HARM)
    except Exception as error:  # noqa: BLE001 - it is told in the table, and the next fault is done
        trouble = "; ".join(filter(None, [trouble, f"{type(error).__name__}: {error}"]))
    right_s = time.monotonic()
    not_well = _until_well(stage)
    well_after_s = time.monotonic() - right_s
    time.sleep(max(0.0, began_s + each_s - time.monotonic()))
    seen = Outcome(
        fault.title,
        stage.load.tally(kill),
        kill,
        well_after_s,
        "; ".join(filter(None, [trouble, not_well])),
    )
    console.print(f"  {fault.name}: {seen.tally.requests} requests, {seen.what_failed or 'good'}")
    return seen


def _until_well(stage: Stage) -> str:
    """Return once all is well, with ""; else, in the end, with what isn't."""
    give_up_s = time.monotonic() + _WELL_S
    while trouble := stage.trouble():
        if time.monotonic() > give_up_s:
            return f"not well after {_WELL_S:.0f} s: {trouble}"
        time.sleep(0.1)
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared by the faults")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in FAULTS])
    parser.add_argument("--callers", type=int, default=4, help="that wait for their answers")
    parser.add_argument("--rate", type=int, default=50, help="of further calls a second")
    parser.add_argument("--json", action="store_true", help="on standard output, as one line")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs, which stays")
    return parser


if __name__ == "__main__":
    sys.exit(main())
