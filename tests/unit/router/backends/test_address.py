from typing import Any

from structlog.testing import capture_logs

from coalmine_router.backends.address import Address
from coalmine_router.backends.address_state import AddressState
from coalmine_router.backends.targets import Endpoint
from tests.doubles.clock import LoopTime


class Opened:
    """A channel that remembers which methods were asked of it."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def unary_unary(self, method: str) -> Any:
        self.methods.append(method)
        return object()

    stream_stream = unary_unary


def address(channel: Any = None, changes: list[int] | None = None) -> Address:
    told = changes if changes is not None else []
    return Address("blue", Endpoint("ipv4:1:80", "1:80"), channel, lambda: told.append(1))


def test_a_method_is_made_once() -> None:
    opened = Opened()
    at = address(opened)
    assert at.unary_call("/s/M") is at.unary_call("/s/M")
    assert at.stream_call("/s/M") is at.stream_call("/s/M")
    assert opened.methods == ["/s/M", "/s/M"]


def test_methods_that_callers_make_up_do_not_pile_up() -> None:
    at = address(Opened())
    for n in range(1_000):
        at.unary_call(f"/s/M{n}")
        at.stream_call(f"/s/M{n}")
    assert len(at._unaries) == len(at._streams) == 256


async def test_a_change_is_told_once() -> None:
    changes: list[int] = []
    at = address(changes=changes)
    up = AddressState().after_connecting().after_health_report(serving=True)
    at.set_state(up)
    at.set_state(up.after_probe(answered=True))
    assert len(changes) == 1
    at.set_state(up.after_health_report(serving=False))
    assert len(changes) == 2


def test_a_doubt_that_nobody_looks_into_is_no_error() -> None:
    doubts: list[int] = []
    at = address()
    at.request_probe()
    at.set_probe_request(lambda: doubts.append(1))
    at.request_probe()
    assert doubts == [1]


UP = AddressState().after_connecting().after_health_report(serving=True)


async def test_a_connection_that_is_renewed_within_a_second_is_no_line_in_the_log() -> None:
    at, time = address(), LoopTime()
    with capture_logs() as logs:
        at.set_state(UP)
        for _ in range(3):
            at.set_state(UP.after_loss())
            await time.advance(0.9)
            at.set_state(UP)
        await time.advance(1.1)
    assert [each["event"] for each in logs] == ["address_available"]


async def test_one_that_isnt_back_within_a_second_is_told_with_the_reason_of_then() -> None:
    at, time = address(), LoopTime()
    at.set_state(UP)
    with capture_logs() as logs:
        at.set_state(UP.after_loss())
        at.set_state(UP.after_failure("connection refused"))
        await time.advance(1.1)
        at.set_state(UP)
    assert [(each["event"], each.get("why")) for each in logs] == [
        ("address_unavailable", "no connection: connection refused"),
        ("address_available", None),
    ]


async def test_one_that_has_left_meanwhile_is_not_told_of() -> None:
    at, time = address(), LoopTime()
    at.set_state(UP)
    with capture_logs() as logs:
        at.set_state(UP.after_loss())
        at.retire()
        await time.advance(1.1)
    assert logs == []
