"""How a route's status looks to the operator. Pure: from the message to what rich prints."""

from collections.abc import Iterator, Mapping

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    STRONG,
    add,
    counted,
    line,
    moment,
    stacked,
    table,
)
from coalmine_client.cli.shares import rate

_OK = "OK"


def status_view(status: pb.RouteStatus) -> RenderableType:
    """Return the route's head, then its variants, shadows, comparisons, proxies and reports."""
    parts: list[RenderableType] = [_head(status), line(), _variants(status), *_troubles(status)]
    if status.route.shadows or status.shadows:
        parts += [line(), _shadows(status)]
    if status.comparisons:
        parts += [line(), _comparisons(status)]
    parts += [line(), _proxies(status), *_strays(status), _reports(status.reports)]
    return stacked(parts)


def _head(status: pb.RouteStatus) -> RenderableType:
    route = status.route
    facts = [f"model {route.match_model}", f"revision {status.revision}"]
    if route.timeout_ns:
        facts.append(f"timeout {route.timeout_ns / 1e9:g}s")
    if route.sticky_metadata:
        facts.append(f"sticky by {route.sticky_metadata}")
    if route.pinning:
        facts.append("may be pinned")
    since = f"counting since {moment(status.counting_since_ns)}"
    return stacked([line((route.name, STRONG), "   ", " · ".join(facts)), line((since, FAINT))])


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
    """Yield a line for each variant that isn't ready or answered with errors."""
    for of in status.variants:
        if not of.ready:
            yield line((f"{of.name} is not ready: {of.reason or 'no reason given'}", BAD))
        if errors := _errors_by_status(of):
            yield line((f"{of.name} answered {counted(errors)}", BAD))


# ---------------------------------------------------------------- copies and comparisons


def _shadows(status: pb.RouteStatus) -> RenderableType:
    rows = table("shadow", ">share", ">offered", ">sent", ">dropped", "by reason")
    counts = {each.variant: each for each in status.shadows}
    shares = {each.variant: each.share_bp for each in status.route.shadows}
    for variant in {**shares, **counts}:
        of = counts.get(variant, pb.ShadowCounts())
        dropped = sum(of.dropped.values())
        add(
            rows,
            (variant, STRONG),
            percent(shares.get(variant, 0)),
            f"{of.offered:,}",
            f"{of.sent:,}",
            (f"{dropped:,}", DOUBTFUL if dropped else ""),
            counted(_nonzero(of.dropped)),
        )
    return rows


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


# ---------------------------------------------------------------- processes


def _proxies(status: pb.RouteStatus) -> RenderableType:
    current = sum(each.revision == status.revision for each in status.proxies)
    words = f"{current} of {len(status.proxies)} serve revision {status.revision}"
    everywhere = 0 < len(status.proxies) == current
    return line(("proxies   ", FAINT), (words, "" if everywhere else DOUBTFUL))


def _strays(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a line for each proxy that serves another revision, or refused one."""
    for of in status.proxies:
        if of.revision != status.revision or of.refused:
            serves = f"serves revision {of.revision}" if of.revision else "serves no table yet"
            why = f", refused: {of.refused}" if of.refused else ""
            since = f", connected since {moment(of.connected_since_ns)}"
            yield line((f"          {of.proxy_id} {serves}{why}{since}", DOUBTFUL))


def _reports(of: pb.ReportCounts) -> RenderableType:
    dropped = sum(of.dropped.values())
    reasons = f" ({counted(_nonzero(of.dropped))})" if dropped else ""
    return line(
        ("reports   ", FAINT),
        f"{of.offered:,} offered · {of.received:,} received · ",
        (f"{dropped:,} dropped{reasons}", DOUBTFUL if dropped else ""),
    )


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
