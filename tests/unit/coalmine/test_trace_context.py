import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from coalmine.trace_context import (
    HeadSampler,
    Parent,
    is_tracestate,
    parse,
    sampler_from,
    trace_ids,
    traceparent,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)


@given(ids, span_ids, st.booleans())
def test_a_header_reads_back_as_the_parent_it_was_made_of(
    trace_id: Any, span_id: Any, sampled: Any
) -> None:
    assert parse(traceparent(trace_id, span_id, sampled=sampled)) == Parent(
        trace_id, span_id, sampled
    )


def test_a_log_line_names_the_callers_span_whether_it_is_sampled_or_not() -> None:
    metadata: list[tuple[str, str | bytes]] = [("x", b""), ("traceparent", f"00-{TRACE}-{SPAN}-00")]
    assert trace_ids(metadata) == {"trace_id": TRACE, "span_id": SPAN}


@pytest.mark.parametrize("given", [[], [("traceparent", "nonsense")], [("traceparent", b"x")]])
def test_a_log_line_names_no_span_without_a_valid_traceparent(given: Any) -> None:
    assert trace_ids(given) == {}


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_only_the_lowest_flag_tells_whether_a_trace_is_sampled(
    traceparent: Any, sampled: Any
) -> None:
    assert parse(traceparent) == Parent(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
    ],
)
def test_what_is_no_valid_traceparent_begins_a_new_trace(traceparent: Any) -> None:
    assert parse(traceparent) is None


# ---------------------------------------------------------------- the head decision

LOW = bytes(16)
HIGH = b"\xff" * 16
SAMPLED = Parent(HIGH, b"\1" * 8, sampled=True)
UNSAMPLED = Parent(LOW, b"\1" * 8, sampled=False)


@pytest.mark.parametrize(
    ("name", "argument", "of_parents", "of_roots"),
    [
        ("", "", (True, False), (True, True)),
        ("always_on", "", (True, True), (True, True)),
        ("always_off", "", (False, False), (False, False)),
        ("traceidratio", "0.5", (False, True), (True, False)),
        ("parentbased_always_on", "", (True, False), (True, True)),
        ("parentbased_always_off", "", (True, False), (False, False)),
        ("parentbased_traceidratio", "0.5", (True, False), (True, False)),
        ("traceidratio", "", (True, True), (True, True)),
    ],
)
def test_the_variables_choose_whom_the_head_decision_follows(
    name: Any, argument: Any, of_parents: Any, of_roots: Any
) -> None:
    """`of_parents`: HIGH under a sampled, LOW under an unsampled parent; `of_roots`: LOW, HIGH."""
    sampler = sampler_from({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})

    assert (sampler.is_sampled(HIGH, SAMPLED), sampler.is_sampled(LOW, UNSAMPLED)) == of_parents
    assert (sampler.is_sampled(LOW, None), sampler.is_sampled(HIGH, None)) == of_roots


@pytest.mark.parametrize("name", ["jaeger_remote", "xparentbased_always_on", "parentbased_", "on"])
def test_an_unknown_sampler_is_named(name: Any) -> None:
    with pytest.raises(ValueError, match=f"unknown sampler '{name}'"):
        sampler_from({"OTEL_TRACES_SAMPLER": name})


@pytest.mark.parametrize("ratio", ["half", "1.1", "-0.1", "nan"])
def test_a_ratio_that_is_no_share_is_named(ratio: Any) -> None:
    with pytest.raises(ValueError, match=f"expected a number from 0 to 1, got '{ratio}'"):
        sampler_from({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio})


@given(ids, st.floats(0, 1), st.floats(0, 1))
def test_a_trace_that_a_small_ratio_keeps_is_kept_by_a_larger_one(
    trace_id: Any, a: Any, b: Any
) -> None:
    small, large = (HeadSampler(each, parent_based=False) for each in sorted((a, b)))

    assert large.is_sampled(trace_id, None) or not small.is_sampled(trace_id, None)


@given(ids)
def test_a_ratio_of_one_keeps_all_and_of_nothing_none(trace_id: Any) -> None:
    assert HeadSampler(1.0, parent_based=False).is_sampled(trace_id, None)
    assert not HeadSampler(0.0, parent_based=False).is_sampled(trace_id, None)


@pytest.mark.parametrize(
    "text", ["a=1", "a=1,b=2", "a=1, ,b=2 x", "1t@s=v", "a_-*/0=~!", ",".join(["a=1"] * 32)]
)
def test_a_tracestate_can_be_read_that_opentelemetry_takes(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_tracestate(text)
    TraceState.from_header([text])
    assert caplog.messages == []


@given(st.text(alphabet="ab1@=,_ ~\x01é", max_size=12))
def test_of_what_can_be_read_opentelemetry_logs_no_line(text: str) -> None:
    if is_tracestate(text):
        with NoLines():
            TraceState.from_header([text])


@pytest.mark.parametrize(
    "text", ["", " ", ",", "a", "=1", "a=", "A=1", "a=1\n", "a=é", ",".join(["a=1"] * 33)]
)
def test_a_tracestate_that_is_none_is_none(text: str) -> None:
    assert not is_tracestate(text)


class NoLines(logging.Filter):
    """Within it, OpenTelemetry may not log."""

    def __enter__(self) -> None:
        logging.getLogger("opentelemetry.trace.span").addFilter(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("opentelemetry.trace.span").removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        raise AssertionError(record.getMessage())
