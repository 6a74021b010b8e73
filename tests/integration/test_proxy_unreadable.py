"""What callers hear of answers that the router's own gRPC can't read, or callers couldn't take."""

import gzip
import struct

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.observer.split import split_events
from tests.doubles.http2 import message
from tests.doubles.oip_backend import OipBackend, answering
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.raw_backend import (
    Frames,
    RawBackend,
    answer,
    data,
    headers,
    reset,
    status,
)
from tests.doubles.split_route import (
    PIN_CANARY,
    PIXELS,
    REQUEST,
    Ended,
    assert_all_let_out,
    ended,
    split_route,
    table_of,
)

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INTERNAL = grpc.StatusCode.INTERNAL
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN
OK = (b"grpc-status", b"0")
PAGE = ((b"content-type", b"text/html"),)
ZIPPED = gzip.compress(bytes(65 * 1024 * 1024), 9)


def said(code: int, text: bytes, *more: tuple[bytes, bytes]) -> Frames:
    return lambda stream: status(stream, code, (b"grpc-message", text), *more)


def page(code: bytes) -> Frames:
    return lambda stream: [
        *headers(stream, ((b":status", code), *PAGE), is_end=False),
        *data(stream, b"<html>bad gateway", is_end=True),
    ]


def beside(*, first: bytes = b"", last: bytes = b"") -> Frames:
    begin = ((b"x-first", first),) if first else ()
    end = ((b"x-last", last),) if last else ()
    return lambda stream: answer(stream, message(b""), OK, *end, first=begin)


def zipped(stream: int) -> list[bytes]:
    parts = [ZIPPED[at : at + 16_000] for at in range(0, len(ZIPPED), 16_000)]
    head, *_ = answer(stream, b"", OK, first=((b"grpc-encoding", b"gzip"),))
    prefix = data(stream, b"\x01" + struct.pack(">I", len(ZIPPED)))
    return [head, *prefix, *(frame for part in parts for frame in data(stream, part))]


async def heard(frames: Frames) -> tuple[Ended, pb.Report, bool]:
    """Return what the caller of such a canary heard, its report, and whether canary is charged."""
    async with (
        OipBackend(answering(logits=PIXELS)) as stable,
        RawBackend(frames) as canary,
        ProxyRig(table_of(stable.address, canary.address, split_route(9_999))) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST))
        await assert_all_let_out(proxy)
        (report,) = proxy.reports
        (event,) = split_events(report, None)
        return seen, report, event.is_error


@pytest.mark.parametrize(
    ("frames", "code", "why"),
    [
        (said(13, b"z" * 70_000), EXHAUSTED, "metadata size exceeds hard limit"),
        (beside(last=b"z" * 20_000), EXHAUSTED, "20038 bytes of metadata"),
        (beside(first=b"z" * 20_000), EXHAUSTED, "20039 bytes of metadata"),
        (beside(last=b"z" * 70_000), EXHAUSTED, "metadata size exceeds hard limit"),
        (
            lambda stream: answer(stream, b"\0\xff\xff\xff\xffxx"),
            EXHAUSTED,
            "Received message larger than max",
        ),
        (lambda stream: reset(stream, 2), INTERNAL, "RST_STREAM"),
        (lambda stream: reset(stream, 7), UNAVAILABLE, "RST_STREAM"),
        (page(b"502"), UNAVAILABLE, "Received http2 header with status: 502"),
        (page(b"200"), UNKNOWN, "END_STREAM"),
        (lambda stream: status(stream, 0), INTERNAL, "said OK and sent no answer"),
        (
            lambda stream: answer(stream, message(b""), (b"x-a", b"b")),
            UNKNOWN,
            "No status received",
        ),
        (
            lambda stream: answer(
                stream,
                message(b"no gzip", is_compressed=True),
                OK,
                first=((b"grpc-encoding", b"gzip"),),
            ),
            INTERNAL,
            "Decompression failed",
        ),
    ],
)
async def test_what_cannot_be_read_is_the_routers_word_and_charged_to_the_variant(
    frames: Frames, code: grpc.StatusCode, why: str
) -> None:
    seen, report, is_charged = await heard(frames)
    assert (seen.code, seen.is_routers, seen.variant) == (code, True, "canary")
    assert seen.message.startswith("variant 'canary': backend 'green'")
    assert why in seen.message
    assert (report.origin_router, is_charged) == (True, True)


async def test_an_answer_that_unpacks_to_too_much_is_charged() -> None:
    seen, _, is_charged = await heard(zipped)
    assert (seen.code, seen.is_routers, is_charged) == (EXHAUSTED, True, True)


@pytest.mark.parametrize("length", [7_800, 9_000, 20_000, 60_000])
@pytest.mark.parametrize("letter", [b"z", b"%C3%A9"])
async def test_a_long_error_keeps_its_code_and_what_a_caller_can_take_of_its_text(
    length: int, letter: bytes
) -> None:
    text = letter * (length // len(letter))
    seen, report, is_charged = await heard(said(13, b"RuntimeError: " + text))
    assert (seen.code, seen.is_routers, seen.variant) == (INTERNAL, False, "canary")
    assert seen.message.startswith("RuntimeError: ")
    assert "cut by the router, of " in seen.message
    assert len(seen.message.encode()) > 2_000
    assert (report.status_code, is_charged) == (13, True)


async def test_an_error_with_much_metadata_keeps_its_code_and_text() -> None:
    frames = said(13, b"no such layer", (b"x-small", b"1"), (b"x-large", b"z" * 20_000))
    seen, _, is_charged = await heard(frames)
    assert (seen.code, is_charged) == (INTERNAL, True)
    assert seen.message == "no such layer … [1 metadata left out by the router]"
    assert seen.trailing["x-small"] == "1"
    assert "x-large" not in seen.trailing


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (said(8, b"the queue is full"), EXHAUSTED),
        (said(99, b"a code of tomorrow"), UNKNOWN),
        (said(13, b"no %FF UTF-8 \xff"), INTERNAL),
        (said(16, b"show a token"), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_what_the_backend_says_stays_its_word(frames: Frames, code: grpc.StatusCode) -> None:
    seen, _, _ = await heard(frames)
    assert (seen.code, seen.is_routers, seen.variant) == (code, False, "canary")


@pytest.mark.parametrize(
    "frames",
    [
        said(14, b"z" * 9_000),
        said(14, b"z" * 70_000),
        beside(last=b"z" * 9_000),
        page(b"503"),
    ],
)
async def test_stable_stands_in_for_what_cannot_be_read_and_who_goes_on_so_is_out(
    frames: Frames,
) -> None:
    route = split_route(fallback=True)
    rules = EjectionRules(failures=3, first_ns=60 * 10**9)
    async with (
        OipBackend(answering(logits=PIXELS)) as stable,
        RawBackend(frames) as canary,
        ProxyRig(table_of(stable.address, canary.address, route), rules=rules) as proxy,
    ):
        for _ in range(5):
            seen = await ended(proxy.infer(REQUEST))
            assert (seen.code, seen.variant) == (grpc.StatusCode.OK, "stable")
        assert canary.asked == 3
        pinned = await ended(proxy.infer(REQUEST, metadata=PIN_CANARY))
        assert pinned.code in {UNAVAILABLE, EXHAUSTED}


@pytest.mark.parametrize("frames", [beside(first=b"z" * 9_000), said(13, b"z" * 70_000)])
async def test_a_streams_answer_that_cannot_be_read_is_told_as_a_calls_is(frames: Frames) -> None:
    async with (
        OipBackend(answering(logits=PIXELS)) as stable,
        RawBackend(frames) as canary,
        ProxyRig(table_of(stable.address, canary.address, split_route(9_999))) as proxy,
    ):
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        stream = proxy.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        call = stream(iter([REQUEST]), timeout=10)
        # A write that meets the end makes INTERNAL of it in gRPC, whatever the backend's code was.
        assert await call.code() in {EXHAUSTED, INTERNAL}, await call.details()
        assert "variant 'canary'" in await call.details()
        trailing = dict(await call.trailing_metadata())
        assert (trailing["x-coalmine-origin"], trailing["x-coalmine-variant"]) == (
            "router",
            "canary",
        )
        (event,) = split_events(proxy.reports[0], None)
        assert event.is_error
