"""How a route's status looks to the operator. Pure: from the message to what rich prints."""

from collections.abc import Iterator

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    STRONG,
    Cell,
    add,
    counted,
    line,
    moment,
    nonzero,
    stacked,
    table,
)
from coalmine_client.cli.copies_view import copies
from coalmine_client.cli.policy import match, policy
from coalmine_client.cli.processes_view import processes
from coalmine_client.cli.shares import rate
from coalmine_client.cli.verdict_view import verdicts, word

_OK = "OK"


def status_view(status: pb.RouteStatus) -> RenderableType:
    """Return the route's head, verdicts, variants, copies, comparisons, proxies and reports."""
    parts: list[RenderableType] = [_head(status), *verdicts(status), line(), _variants(status)]
    parts += _troubles(status)
    if lanes := list(copies(status)):
        parts += [line(), *lanes]
    if status.comparisons:
        parts += [line(), _comparisons(status)]
    parts += [line(), *processes(status)]
    return stacked(parts)


def _head(status: pb.RouteStatus) -> RenderableType:
    route = status.route
    facts = [match(route), f"revision {status.revision}", *policy(route)]
    since = f"counting since {moment(status.counting_since_ns)}"
    said: list[Cell] = [word(status.verdict), "   "] if status.verdict else []
    head = line((route.name, STRONG), "   ", *said, " · ".join(facts))
    return stacked([head, line((since, FAINT))])


# ---------------------------------------------------------------- variants


def _variants(status: pb.RouteStatus) -> RenderableType:
    rows = table(
        "variant",
        "served by",
        ">weight",
        ">got",
        ">requests",
        ">errors",
        ">p50 ms",
        ">p99 ms",
        "ready",
    )
    counts = {each.name: each for each in status.variants}
    split_requests = sum(each.split_requests for each in status.variants)
    for variant in status.route.variants:
        of = counts.get(variant.name, pb.VariantStatus(name=variant.name))
        add(
            rows,
            (variant.name, STRONG),
            _served_by(variant),
            percent(variant.weight_bp),
            rate(of.split_requests, split_requests),
            f"{of.requests:,}",
            _errors(of),
            _latency(of.latency_p50_ms, of.requests),
            _latency(of.latency_p99_ms, of.requests),
            ("yes", GOOD) if of.ready else ("no", BAD),
        )
    return rows


def _served_by(variant: pb.Variant) -> str:
    """Return the backend, and the model and version where the variant sets them."""
    parts = [variant.backend, variant.model]
    if variant.version:
        parts.append(f"v{variant.version}")
    return " ".join(filter(None, parts))


def _errors(of: pb.VariantStatus) -> tuple[str, str]:
    errors = sum(_errors_by_status(of).values())
    if not errors:
        return "0", ""
    return f"{errors:,} ({rate(errors, of.requests)})", BAD


def _errors_by_status(of: pb.VariantStatus) -> dict[str, int]:
    return {name: count for name, count in of.requests_by_status.items() if count and name != _OK}


def _latency(ms: float, requests: int) -> str:
    return f"{ms:,.2f}" if requests else "-"


def _troubles(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a line for each variant that isn't ready, failed or fell back; and what was refused."""
    for of in status.variants:
        if not of.ready:
            yield line((f"{of.name} is not ready: {of.reason or 'no reason given'}", BAD))
        if errors := _errors_by_status(of):
            yield line((f"{of.name} answered {counted(errors)}", BAD))
        if fallbacks := nonzero(of.fallbacks):
            fell = f"{of.name}: {sum(fallbacks.values()):,} fell back"
            yield line((f"{fell} ({counted(fallbacks)})", DOUBTFUL))
    if refused := nonzero(status.turned_away):
        total = sum(refused.values())
        yield line((f"{total:,} turned away by the router ({counted(refused)})", DOUBTFUL))


# ---------------------------------------------------------------- comparisons


def _comparisons(status: pb.RouteStatus) -> RenderableType:
    rows = table(
        "compared",
        "output",
        ">match",
        ">mismatch",
        ">error",
        ">skipped",
        ">mismatch rate",
        ">max |diff|",
    )
    for pair in status.comparisons:
        add(
            rows,
            (f"{pair.candidate} against {pair.reference}", STRONG),
            "",
            f"{pair.match:,}",
            (f"{pair.mismatch:,}", BAD if pair.mismatch else ""),
            (f"{pair.error:,}", BAD if pair.error else ""),
            f"{pair.skipped:,}",
            rate(pair.mismatch, pair.match + pair.mismatch),
            "",
        )
        for of in pair.outputs:
            share = rate(of.mismatch, of.match + of.mismatch)
            count = (f"{of.mismatch:,}", BAD if of.mismatch else "")
            add(
                rows, "", of.output, f"{of.match:,}", count, "", "", share, f"{of.max_abs_diff:.3g}"
            )
    return rows
