"""The record of who used an operator's methods."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from coalmine.access.audit_log import Audit, AuditedServicer, Identify
from coalmine.access.tokens import Principal, Role
from coalmine.errors import InvalidRequest, Unauthenticated
from tests.doubles.clock import HandClock


class FakeContext:
    """A call from 10.0.0.9, as grpc.aio's contexts tell of it."""

    def __init__(self, *subjects: bytes, text: str = "no such model") -> None:
        self._subjects = subjects
        self.text = text

    def peer(self) -> str:
        return "ipv4:10.0.0.9:5"

    def auth_context(self) -> dict[str, Any]:
        return {"x509_subject": self._subjects} if self._subjects else {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer x"),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def details(self) -> str:
        return self.text


def anna(_: object) -> Principal:
    return Principal("anna", Role.OPERATOR)


def nobody(_: object) -> Principal:
    raise Unauthenticated("the token is not known here")


REQUEST = SimpleNamespace(model_name="digits")


def audit_of(identify: Identify | None) -> Audit:
    fields = {"model": "model_name"}
    return Audit(
        "a.Service", ("Load",), fields=fields, identify=identify, clock=HandClock(step_ns=5 * 10**6)
    )


async def line_of(
    raised: BaseException | None = None,
    *,
    request: Any = REQUEST,
    identify: Any = None,
    context: FakeContext | None = None,
) -> dict[str, Any]:
    """Return the line for a call in which `raised` is raised, if anything."""

    async def behaviour(request: Any, context: Any) -> str:
        if raised is not None:
            raise raised
        return "answer"

    recorded: Any = audit_of(identify).with_audit("Load", behaviour)
    with capture_logs() as logged:
        if raised is None:
            assert await recorded(request, context or FakeContext()) == "answer"
        else:
            with pytest.raises(type(raised)):
                await recorded(request, context or FakeContext())
    (line,) = logged
    return dict(line)


async def test_a_change_is_recorded_with_who_what_and_how_long() -> None:
    assert await line_of(identify=anna) == {
        "event": "audit",
        "log_level": "info",
        "who": "anna",
        "peer": "ipv4:10.0.0.9:5",
        "method": "Load",
        "model": "digits",
        "code": "OK",
        "duration_ms": 5.0,
    }


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (grpc.aio.AbortError(), "NOT_FOUND", "no such model"),
        (asyncio.CancelledError(), "CANCELLED", "given up by the caller, or out of time"),
        (ValueError("secret"), "UNKNOWN", "ValueError"),
    ],
)
async def test_a_failure_is_a_warning_with_its_reason(
    raised: BaseException, code: str, reason: str
) -> None:
    line = await line_of(raised)
    assert (line["log_level"], line["code"], line["reason"]) == ("warning", code, reason)


async def test_without_tokens_a_caller_is_its_certificates_subject() -> None:
    assert (await line_of(context=FakeContext(b"CN=alice,O=x")))["who"] == "CN=alice,O=x"
    assert (await line_of(context=FakeContext(b"CN=\xff")))["who"] == "CN=�"
    assert (await line_of())["who"] == "anonymous"


async def test_what_the_caller_sent_takes_no_more_than_its_part_of_a_line() -> None:
    told = FakeContext(text="x" * 99_999)
    assert len((await line_of(grpc.aio.AbortError(), context=told))["reason"]) == 1_024
    assert len((await line_of(request=SimpleNamespace(model_name="x" * 9_999)))["model"]) == 256


async def test_a_request_that_cannot_be_read_has_no_model() -> None:
    assert (await line_of(request=InvalidRequest("malformed")))["model"] is None


def test_a_call_that_was_turned_away_is_recorded_without_its_request() -> None:
    context: Any = FakeContext()
    with capture_logs() as logged:
        refused = Unauthenticated("the token is not known here")
        audit_of(nobody).write_refusal("/a.Service/Load", context, refused)
        audit_of(nobody).write_refusal("/a.Service/Look", context, refused)
    assert logged == [
        {
            "event": "audit",
            "log_level": "warning",
            "who": "anonymous",
            "peer": "ipv4:10.0.0.9:5",
            "method": "Load",
            "code": "UNAUTHENTICATED",
            "reason": "the token is not known here",
        }
    ]


def test_methods_that_are_not_recorded_are_the_servicers_own() -> None:
    class Servicer:
        Look = object()

    servicer = Servicer()
    assert AuditedServicer(servicer, audit_of(None)).Look is servicer.Look


def test_who_has_proved_nothing_is_nobody() -> None:
    stranger: Any = FakeContext(b"CN=alice")
    assert audit_of(anna).caller_of(stranger) == "anna"
    assert audit_of(nobody).caller_of(stranger) == "", "with tokens, a certificate is not enough"
    assert audit_of(None).caller_of(stranger) == "CN=alice"
    assert audit_of(None).caller_of(FakeContext()) == ""  # type: ignore[arg-type]
