"""Print the way of a report to its verdict: `python -m tools.report_way`.

A real observer is handed a report that tips a verdict, and a profiler notes how it gets there: the
router's functions that are on the stack as the report comes to a station. The stations are those of
docs/adr/0009: it is counted, its copies are queued, the answers are compared, its turn comes, the
evidence is judged, the verdict is saved and told. The call of the copy is a way of its own.

A function counts once. What is nested in a function (a lambda, a comprehension) is a part of it.
The second number counts `comparison/` and `evidence/` as one function in one file each: their inside
is mathematics and a database, not the way.
"""

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import coalmine_router
from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.digit_reports import LOGITS, shadowed
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import OipBackend, answering
from tests.doubles.reports import UNUSED, router_config
from tests.doubles.waiting import eventually

ROOT = Path(coalmine_router.__file__).parent
STATIONS = {
    "observer/counting.py": {"count"},
    "observer/copies/copy_sender.py": {"CopySender.send"},
    "backends/address.py": {"Address.call"},
    "observer/comparison/job.py": {"run"},
    "observer/order.py": {"InOrder.mark_ready"},
    "observer/evidence/gates/all_gates.py": {"verdict_after"},
    "observer/evidence/store.py": {"EvidenceStore.save"},
    "observer/output/span_writer.py": {"SpanWriter.write_request", "SpanWriter.write_verdict"},
}
LAST = "SpanWriter.write_verdict"
# Whoever has this on the stack is at the copy's call.
CALLS_COPIES = "CopySender._work"
SUMMED_UP = ("observer/comparison", "observer/evidence")
# So many requests decide nothing: the next one tips the verdict.
BEFORE = 9

Function = tuple[str, str]


class ReportWay:
    """The functions on the way of a report, and those at the call of its copy, in order."""

    def __init__(self) -> None:
        self.of_report: dict[Function, None] = {}
        self.of_copy: dict[Function, None] = {}
        self.entered: dict[Function, None] = {}
        self.is_over = False

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note that a function is entered: a profiler calls this."""
        if event != "call" or not (entered := _function(frame)):
            return
        self.entered[entered] = None
        file, name = entered
        if name not in STATIONS.get(file, ()):
            return
        stack = [*reversed(list(_on_stack(frame)))]
        is_copy = any(name == CALLS_COPIES for _, name in stack)
        (self.of_copy if is_copy else self.of_report).update(dict.fromkeys(stack))
        self.is_over |= name == LAST


def _function(frame: FrameType) -> Function | None:
    file = frame.f_code.co_filename
    if not file.startswith(f"{ROOT}/"):
        return None
    return str(Path(file).relative_to(ROOT)), frame.f_code.co_qualname.partition(".<locals>")[0]


def _on_stack(frame: FrameType | None) -> Iterator[Function]:
    while frame is not None:
        if function := _function(frame):
            yield function
        frame = frame.f_back


async def _tipped() -> ReportWay:
    """Return the way of the report that tips a verdict."""
    way = ReportWay()
    with tempfile.TemporaryDirectory() as folder:
        async with OipBackend(answering(logits=LOGITS + 0.5)) as candidate:
            config = router_config(stable=UNUSED, canary=candidate.address)
            async with observing(config, Path(folder)) as rig:
                await rig.send(*(shadowed() for _ in range(BEFORE)))
                await rig.plane.wait_until_idle()
                await _follow(rig, shadowed(), way)
    return way


async def _follow(rig: Observing, report: pb.Report, way: ReportWay) -> None:
    threading.setprofile(way.note)
    sys.setprofile(way.note)
    try:
        await rig.send(report)
        await eventually(lambda: way.is_over)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _print(title: str, functions: Iterable[Function]) -> None:
    print(f"{title}: {_counts(functions)}")
    for file in dict.fromkeys(file for file, _ in functions):
        print(f"  {file}")
        for name in (name for other, name in functions if other == file):
            print(f"    {name}")


def _counts(functions: Iterable[Function]) -> str:
    def counts(of: set[Function]) -> str:
        return f"{len(of)} functions in {len({file for file, _ in of})} files"

    summed = {_summed_up(each) for each in functions}
    return f"{counts(set(functions))}; {counts(summed)} with comparison/ and evidence/ as one each"


def _summed_up(function: Function) -> Function:
    rooms = (room for room in SUMMED_UP if function[0].startswith(f"{room}/"))
    return next(((room, "") for room in rooms), function)


def main() -> None:
    way = asyncio.run(_tipped())
    _print("the way of a report", way.of_report)
    _print("the call of its copy", way.of_copy)
    print(f"entered at all, on the way and beside it: {_counts(way.entered)}")


if __name__ == "__main__":
    main()
