"""A route's status for a terminal of 24 rows and 80 columns: what is wrong, and the verdicts. Pure.

Of the usual route it is all that matters; what is folded is counted, and `--all` shows it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    STRONG,
    add_row,
    group,
    indented_line,
    line,
    moment,
    table,
)
from coalmine_client.cli.health_view import health_lines
from coalmine_client.cli.percents import rate_text
from coalmine_client.cli.policy import STABLE, copy_shares
from coalmine_client.cli.route_health import health_of
from coalmine_client.cli.status.processes_view import proxies_line, reports_line
from coalmine_client.cli.status.status_view import (
    backend_text,
    failure_lines,
    head,
    latency_text,
    status_errors,
)
from coalmine_client.cli.verdict_view import badness, dated_reason, verdict_word, way_to_verdict

_REASONS_MAX: Final = 5
_ROWS_MAX: Final = 5


def status_brief(status: pb.RouteStatus) -> RenderableType:
    """Return the health, a line for each candidate against stable, the variants, and sums."""
    parts: list[RenderableType] = [*health_lines(health_of(status), _REASONS_MAX), head(status)]
    for block in (_candidate_rows(status), _variant_rows(status), _sum_lines(status)):
        parts += [line(), *block] if block else []
    return group(parts)


# ---------------------------------------------------------------- verdicts


def _candidate_rows(status: pb.RouteStatus) -> list[RenderableType]:
    own = sorted(
        (each for each in status.comparisons if each.reference == STABLE),
        key=lambda each: (badness(each.verdict.verdict), each.candidate),
    )
    parts: list[RenderableType] = []
    if own:
        rows = table("verdict", "against stable", ">match", ">mismatch", ">error", "needed")
        for found in own[:_ROWS_MAX]:
            add_row(
                rows,
                verdict_word(found.verdict.verdict),
                (found.candidate, STRONG),
                f"{found.match:,}",
                (f"{found.mismatch:,}", BAD if found.mismatch else ""),
                (f"{found.error:,}", BAD if found.error else ""),
                way_to_verdict(found.verdict),
            )
        parts += [rows, *chain.from_iterable(map(_reason_lines, own[:_ROWS_MAX]))]
    if folded := len(status.comparisons) - len(own[:_ROWS_MAX]):
        parts.append(line((f"{folded:,} other {_pairs_noun(folded)}: --all shows them", FAINT)))
    return parts


def _pairs_noun(count: int) -> str:
    return "pair" if count == 1 else "pairs"


def _reason_lines(found: pb.ComparisonCounts) -> Iterator[RenderableType]:
    """Yield why it is no PASS, where a word about what is needed doesn't say that."""
    if (
        found.verdict.verdict != "pass"
        and not way_to_verdict(found.verdict)
        and found.verdict.reason
    ):
        pair = f"{found.candidate} against {found.reference}"
        said = dated_reason(found.verdict)
        yield indented_line(
            2, verdict_word(found.verdict.verdict), "  ", (pair, STRONG), "  ", said
        )


# ---------------------------------------------------------------- variants


def _variant_rows(status: pb.RouteStatus) -> list[RenderableType]:
    counts = {each.name: each for each in status.variants}
    used = _shown_variants(status, counts)
    shown = used if len(used) <= _ROWS_MAX else sorted(used, key=_weight_order)[:_ROWS_MAX]
    rows = table(
        "variant", "served by", ">weight", ">got", ">requests", ">errors", ">p50 ms", ">p99 ms"
    )
    split_requests = sum(each.split_requests for each in status.variants)
    for variant in shown:
        of = counts.get(variant.name, pb.VariantStatus(name=variant.name))
        failed = status_errors(of)
        add_row(
            rows,
            (variant.name, STRONG),
            backend_text(variant),
            percent(variant.weight_bp),
            rate_text(of.split_requests, split_requests),
            f"{of.requests:,}",
            (rate_text(failed, of.requests) if failed else "0", BAD if failed else ""),
            latency_text(of.latency_p50_ms, of.requests),
            latency_text(of.latency_p99_ms, of.requests),
        )
    names = {each.name for each in shown}
    return [rows, *failure_lines(status, names), *_other_line(status.route.variants, names, counts)]


def _shown_variants(
    status: pb.RouteStatus, counts: dict[str, pb.VariantStatus]
) -> list[pb.Variant]:
    """Return the variants that get requests, or copies, or got some: stable, then the others."""
    copied = {name for (_, name), share_bp in copy_shares(status.route).items() if share_bp}
    used = [
        each
        for each in status.route.variants
        if each.weight_bp
        or each.name in {STABLE, *copied}
        or (each.name in counts and counts[each.name].requests)
    ]
    return sorted(used, key=lambda each: each.name != STABLE)


def _weight_order(of: pb.Variant) -> int:
    return -of.weight_bp


def _other_line(
    variants: Sequence[pb.Variant], shown: set[str], counts: dict[str, pb.VariantStatus]
) -> Iterator[RenderableType]:
    others = [counts.get(each.name) for each in variants if each.name not in shown]
    if others:
        unready = sum(not (each and each.ready) for each in others)
        some = f", {unready:,} of them not ready" if unready else ""
        noun = "variant" if len(others) == 1 else "variants"
        yield line((f"{len(others):,} other {noun}{some}: --all shows them", FAINT))


# ---------------------------------------------------------------- sums


def _sum_lines(status: pb.RouteStatus) -> list[RenderableType]:
    since = f"counting since {moment(status.counting_since_ns)}"
    more = line((f"{since} · --all: gates, outputs, segments, copies", FAINT))
    return [*_copies_line(status), proxies_line(status), reports_line(status.reports), more]


def _copies_line(status: pb.RouteStatus) -> Iterator[RenderableType]:
    copied = status.shadows
    if not copied and not copy_shares(status.route):
        return
    failed = sum(each.failed + each.timed_out for each in copied)
    dropped = sum(sum(each.dropped.values()) for each in copied)
    yield indented_line(
        10,
        ("copies    ", FAINT),
        f"{sum(each.offered for each in copied):,} offered · ",
        f"{sum(each.compared for each in copied):,} compared · ",
        (f"{failed:,} failed", BAD if failed else ""),
        " · ",
        (f"{dropped:,} dropped", DOUBTFUL if dropped else ""),
    )
