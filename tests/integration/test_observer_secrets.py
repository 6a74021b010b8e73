"""What a route may not let be kept or told: looked for byte by byte, wherever something is written.

A secret stands in the request, in both answers, in the messages of failures, and in what a rule
quotes when it fails.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from coalmine import telemetry as t
from coalmine_router.own_rule import OwnRule, RowResult
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import (
    Answer,
    OipBackend,
    Seen,
    answering,
    failing,
    request_body,
    response_body,
)
from tests.doubles.reports import UNUSED, report, router_config
from tests.doubles.span_list import SpanList
from tests.doubles.waiting import eventually

SECRET = b"hunter2"
# A number whose digits are looked for, too.
NUMBER = 271828.1875
REFUSED = 3


class Quoting(OwnRule):
    """A rule that fails, and says at what."""

    rule: str = "quoting"

    def measure(self, reference: Any, candidate: Any) -> RowResult:
        raise ValueError(f"no number: {reference.ravel()[0]!r}, {candidate.ravel()[0]!r}")


class Written(SpanList):
    """Everything that was written: files, log lines, spans."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.logs: list[Any] = []

    def files(self) -> dict[str, bytes]:
        """Return what is on the disk, by the files' names."""
        return {each.name: each.read_bytes() for each in self.folder.rglob("*") if each.is_file()}

    def places(self, secret: bytes = SECRET) -> set[str]:
        """Return where a secret is found."""
        told = "".join(str(span.to_json()) for span in self.spans).encode()
        logs = json.dumps(self.logs, default=repr).encode()
        everything = {**self.files(), "logs": logs, "spans": told}
        return {name for name, text in everything.items() if secret in text}


def outputs(text: bytes, number: float) -> dict[str, Any]:
    return {
        "text": np.array([[text]], object),
        "price": np.array([[number]], np.float64),
        "note": np.array([[text]], object),
    }


GIVEN = response_body(**outputs(SECRET + b" of stable", NUMBER))
REQUEST = request_body("digits", prompt=np.array([[SECRET + b" asked"]], object))
RULES = {"outputs": {"note": Quoting()}}
QUOTED = failing(grpc.StatusCode.INTERNAL, f"no such word: {SECRET.decode()}")


@asynccontextmanager
async def observed(written: Written, address: str, **route: Any) -> AsyncIterator[Observing]:
    """Run an observer; once the block has ended, all that it writes is in `written`."""
    config = router_config(stable=UNUSED, canary=address, route={"compare": RULES, **route})
    with capture_logs() as logs:
        async with observing(config, written.folder, spans=written) as rig:
            yield rig
            await rig.plane.wait_until_idle()
    written.logs = list(logs)


async def happened(folder: Path, **route: Any) -> Written:
    """Return what is written of mismatches, of failures, and of what was refused."""
    written = Written(folder)
    wrong = answering(**outputs(SECRET + b" of canary", NUMBER + 1))
    refused = report(REQUEST, shadows=["canary"], status_code=REFUSED)
    refused.status_message = f"bad: {SECRET.decode()}"
    async with OipBackend(wrong) as shadow, observed(written, shadow.address, **route) as rig:
        await rig.send(*(report(REQUEST, GIVEN, shadows=["canary"]) for _ in range(20)))
        await rig.settled(20)
        shadow.script = QUOTED
        await rig.send(report(REQUEST, GIVEN, shadows=["canary"]), refused)
        await rig.settled(22)
        await eventually(
            lambda: any(t.VERDICT in (each.attributes or {}) for each in written.spans)
        )
        assert await rig.mismatches()
    return written


async def test_by_default_values_are_told_and_kept_where_the_documents_say(
    tmp_path: Path,
) -> None:
    written = await happened(tmp_path)
    assert written.places() == {"logs", "spans", "mismatches.db"}
    assert "spans" in written.places(b"271828")


@pytest.mark.parametrize(
    "route",
    [{"sensitive": True}, {"kept": {"capture": "shapes"}}, {"kept": {"capture": "none"}}],
    ids=["sensitive", "shapes", "none"],
)
async def test_below_full_nothing_of_a_value_or_of_an_errors_text_is_written_anywhere(
    tmp_path: Path, route: Any
) -> None:
    written = await happened(tmp_path, **route)
    for secret in (SECRET, b"271828", np.float64(NUMBER).tobytes()):
        assert written.places(secret) == set()
    compared = [each for each in written.spans if t.COMPARE_OUTCOME in (each.attributes or {})]
    outcomes = [(each.attributes or {})[t.COMPARE_OUTCOME] for each in compared]
    assert Counter(outcomes) == {"mismatch": 21, "error": 1}
    assert {"evidence.db", "mismatches.db"} <= written.files().keys()


async def test_evidence_holds_sums_and_never_a_value_whatever_is_captured(tmp_path: Path) -> None:
    written = await happened(tmp_path, kept={"capture": "full"})
    assert b"digits" in written.files()["evidence.db"]
    assert SECRET not in written.files()["evidence.db"]


async def test_an_input_that_is_dropped_is_on_no_disk_and_the_others_are(tmp_path: Path) -> None:
    written = Written(tmp_path)
    plain = outputs(b"plain", 1.0)
    asked = request_body(
        "digits", prompt=np.array([[SECRET]], object), other=np.array([[b"kept word"]], object)
    )

    def answer(_: Seen) -> Answer:
        return Answer(response_body(**outputs(b"another", 2.0)))

    async with OipBackend(answer) as shadow:
        kept = {"kept": {"drop_inputs": ["prompt"]}}
        async with observed(written, shadow.address, **kept) as rig:
            await rig.send(report(asked, response_body(**plain), shadows=["canary"]))
            await rig.settled(1)
            assert await rig.mismatches()
    assert written.places() == set()
    assert written.places(b"kept word") == {"mismatches.db"}
