"""How a route's status looks to the operator. Pure: from the message to what rich prints."""

from collections.abc import Container, Iterator

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
    add_row,
    counts_text,
    group,
    indented_line,
    line,
    moment,
    nonzero,
    table,
)
from coalmine_client.cli.health_view import health_lines
from coalmine_client.cli.percents import rate_text
from coalmine_client.cli.policy import match_text, policy_facts
from coalmine_client.cli.route_health import health_of
from coalmine_client.cli.status.copies_view import copies_lines
from coalmine_client.cli.status.processes_view import processes_lines
from coalmine_client.cli.verdict_view import verdict_blocks, verdict_word

_OK = "OK"


def status_view(status: pb.RouteStatus) -> RenderableType:
    """Return all there is: health, verdicts, variants, copies, comparisons, proxies, reports."""
    since = line((f"counting since {moment(status.counting_since_ns)}", FAINT))
    parts: list[RenderableType] = [*health_lines(health_of(status)), head(status), since]
    parts += [*verdict_blocks(status), line(), _variants_table(status), *_unready_lines(status)]
    parts += failure_lines(status, {each.name for each in status.variants})
    if copied := list(copies_lines(status)):
        parts += [line(), *copied]
    if status.comparisons:
        parts += [line(), _comparisons_table(status)]
    parts += [line(), *processes_lines(status)]
    return group(parts)


def head(status: pb.RouteStatus) -> RenderableType:
    """Return the route's name and verdict, what it matches, and how it treats its requests."""
    route = status.route
    facts = [match_text(route), f"revision {status.revision}", *policy_facts(route)]
    said: list[Cell] = [verdict_word(status.verdict), "   "] if status.verdict else []
    return indented_line(2, (route.name, STRONG), "   ", *said, " · ".join(facts))


# ---------------------------------------------------------------- variants


def _variants_table(status: pb.RouteStatus) -> RenderableType:
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
        add_row(
            rows,
            (variant.name, STRONG),
            backend_text(variant),
            percent(variant.weight_bp),
            rate_text(of.split_requests, split_requests),
            f"{of.requests:,}",
            _errors_cell(of),
            latency_text(of.latency_p50_ms, of.requests),
            latency_text(of.latency_p99_ms, of.requests),
            ("yes", GOOD) if of.ready else ("no", BAD),
        )
    return rows


def backend_text(variant: pb.Variant) -> str:
    """Return the backend, and the model and version where the variant sets them."""
    parts = [variant.backend, variant.model]
    if variant.version:
        parts.append(f"v{variant.version}")
    return " ".join(filter(None, parts))


def _errors_cell(of: pb.VariantStatus) -> tuple[str, str]:
    errors = status_errors(of)
    if not errors:
        return "0", ""
    return f"{errors:,} ({rate_text(errors, of.requests)})", BAD


def status_errors(of: pb.VariantStatus) -> int:
    """Return how many requests ended with another status than OK."""
    return sum(_errors_by_status(of).values())


def _errors_by_status(of: pb.VariantStatus) -> dict[str, int]:
    return {name: count for name, count in of.requests_by_status.items() if count and name != _OK}


def latency_text(ms: float, requests: int) -> str:
    """Return milliseconds; a dash where nothing was answered."""
    return f"{ms:,.2f}" if requests else "-"


def _unready_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    for of in status.variants:
        if not of.ready:
            yield indented_line(
                2, (f"{of.name} is not ready: {of.reason or 'no reason given'}", BAD)
            )


def failure_lines(status: pb.RouteStatus, names: Container[str]) -> Iterator[RenderableType]:
    """Yield a line for each variant of these that failed or fell back; and what was refused."""
    for of in status.variants:
        if of.name not in names:
            continue
        if errors := _errors_by_status(of):
            yield indented_line(2, (f"{of.name} answered {counts_text(errors)}", BAD))
        if fallbacks := nonzero(of.fallbacks):
            fell = f"{of.name}: {sum(fallbacks.values()):,} fell back"
            yield indented_line(2, (f"{fell} ({counts_text(fallbacks)})", DOUBTFUL))
    if refused := nonzero(status.turned_away):
        total = sum(refused.values())
        yield line((f"{total:,} turned away by the router ({counts_text(refused)})", DOUBTFUL))


# ---------------------------------------------------------------- comparisons


def _comparisons_table(status: pb.RouteStatus) -> RenderableType:
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
        add_row(
            rows,
            (f"{pair.candidate} against {pair.reference}", STRONG),
            "",
            f"{pair.match:,}",
            (f"{pair.mismatch:,}", BAD if pair.mismatch else ""),
            (f"{pair.error:,}", BAD if pair.error else ""),
            f"{pair.skipped:,}",
            rate_text(pair.mismatch, pair.match + pair.mismatch),
            "",
        )
        for of in pair.outputs:
            share = rate_text(of.mismatch, of.match + of.mismatch)
            count = (f"{of.mismatch:,}", BAD if of.mismatch else "")
            add_row(
                rows, "", of.output, f"{of.match:,}", count, "", "", share, f"{of.max_abs_diff:.3g}"
            )
    return rows
