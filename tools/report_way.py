"""The way of a report to its verdict: `python -m tools.report_way` prints it.

A real observer is handed a report that tips a verdict, and a profiler notes how it gets there: the
router's functions that are on the stack as the report comes to a station, or is handed over to a
task or a callback. The stations are those of docs/adr/0009: it is counted, its copies are queued,
the answers are compared, its turn comes, the evidence is judged, the verdict is saved and told. The
call of the copy is a way of its own.

A function counts once. What is nested in a function (a lambda, a comprehension) is a part of it.
The second figure counts `comparison/` and `evidence/` as one function in one file each: their
inside is mathematics and a database. The last line counts all that is entered, helpers included.
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
    ("observer/counting.py", "count"),
    ("observer/copies/copy_sender.py", "CopySender.send"),
    ("observer/comparison/job.py", "results_of"),
    ("observer/order.py", "InOrder.mark_ready"),
    ("observer/evidence/gates/all_gates.py", "verdict_after"),
    ("observer/evidence/store.py", "EvidenceStore.save"),
    ("observer/output/span_writer.py", "SpanWriter.write_request"),
    ("observer/output/span_writer.py", "SpanWriter.write_verdict"),
}
LAST = ("observer/output/span_writer.py", "SpanWriter.write_verdict")
COPY_CALL = ("backends/address.py", "Address.call")
# Whatever these hand over goes on elsewhere; queues of copies begin workers, which are the copy's.
HAND_OVERS = {"create_task", "add_done_callback", "set_result"}
COPY_WORKER_BEGINS = ("observer/copies/copy_sender.py", "CopySender._employ")
SUMMED_UP_TEXT = "comparison/ and evidence/ as one each"
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

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Note that a function is entered, or hands something over: a profiler calls this."""
        if event == "c_call":
            if getattr(argument, "__name__", "") in HAND_OVERS:
                self._note_hand_over(frame)
        elif event == "call":
            entered = _function(frame)
            if entered is not None:
                self._note_entered(frame, entered)
            elif frame.f_code.co_name in HAND_OVERS and frame.f_back is not None:
                self._note_hand_over(frame.f_back)

    def _note_hand_over(self, frame: FrameType) -> None:
        giver = _function(frame)
        if giver is not None and giver[0].startswith("observer/"):
            way = self.of_copy if giver == COPY_WORKER_BEGINS else self.of_report
            way.update(_on_stack(frame))

    def _note_entered(self, frame: FrameType, entered: Function) -> None:
        self.entered[entered] = None
        if entered in STATIONS:
            self.of_report.update(_on_stack(frame))
        elif entered == COPY_CALL:
            self.of_copy.update(_on_stack(frame))
        self.is_over |= entered == LAST


def _function(frame: FrameType) -> Function | None:
    file = frame.f_code.co_filename
    if not file.startswith(f"{ROOT}/"):
        return None
    return str(Path(file).relative_to(ROOT)), frame.f_code.co_qualname.partition(".<locals>")[0]


def _on_stack(frame: FrameType | None) -> dict[Function, None]:
    """Return the router's functions on the stack, the outermost first."""
    inner_first: list[Function] = []
    while frame is not None:
        function = _function(frame)
        if function is not None:
            inner_first.append(function)
        frame = frame.f_back
    return dict.fromkeys(reversed(inner_first))


async def _trace_tipping_report() -> ReportWay:
    way = ReportWay()
    with tempfile.TemporaryDirectory() as folder:
        async with OipBackend(answering(logits=LOGITS + 0.5)) as candidate:
            config = router_config(stable=UNUSED, canary=candidate.address)
            async with observing(config, Path(folder)) as rig:
                await rig.send(*(shadowed() for _ in range(BEFORE)))
                await rig.plane.wait_until_idle()
                await _trace(rig, shadowed(), way)
    return way


async def _trace(rig: Observing, report: pb.Report, way: ReportWay) -> None:
    threading.setprofile(way.note)
    sys.setprofile(way.note)
    try:
        await rig.send(report)
        await eventually(lambda: way.is_over)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _print(title: str, functions: Iterable[Function]) -> None:
    by_file: dict[str, list[str]] = {}
    for file, name in functions:
        by_file.setdefault(file, []).append(name)
    print(f"{title}: {_count(functions)}; {_count(_sum_up(functions))} with {SUMMED_UP_TEXT}")
    for file, names in by_file.items():
        print(f"  {file}")
        for name in names:
            print(f"    {name}")


def _count(functions: Iterable[Function]) -> str:
    unique = set(functions)
    return f"{len(unique)} functions in {len({file for file, _ in unique})} files"


def _sum_up(functions: Iterable[Function]) -> Iterator[Function]:
    for file, name in functions:
        rooms = (room for room in SUMMED_UP if file.startswith(f"{room}/"))
        room = next(rooms, None)
        yield (room, "") if room else (file, name)


def main() -> None:
    way = asyncio.run(_trace_tipping_report())
    missed = STATIONS - way.entered.keys()
    if missed:
        raise SystemExit(f"a report comes to no such function any more: {sorted(missed)}")
    _print("the way of a report", way.of_report)
    _print("the call of its copy", way.of_copy)
    entered = way.entered
    print(f"entered at all: {_count(entered)}; {_count(_sum_up(entered))} with {SUMMED_UP_TEXT}")


if __name__ == "__main__":
    main()
