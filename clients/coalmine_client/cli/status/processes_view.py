"""How a route's proxies look to the operator: what they serve, reach and report. Pure."""

from collections.abc import Iterator

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    counts_text,
    indented_line,
    line,
    moment,
    nonzero,
)

_INDENT = " " * 10
# In less than that a proxy has found the control process.
_ALONE_NS = 1_000_000_000


def processes_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield the line of the proxies, one for each that is behind or out of reach, and reports."""
    yield proxies_line(status)
    yield from _revision_lines(status)
    yield from _saved_table_lines(status)
    yield from _trouble_lines(status)
    yield from _reach_lines(status)
    yield reports_line(status.reports)


def proxies_line(status: pb.RouteStatus) -> RenderableType:
    """Return how many proxies serve by the table in force."""
    current = sum(each.revision == status.revision for each in status.proxies)
    words = f"{current} of {len(status.proxies)} serve revision {status.revision}"
    everywhere = 0 < len(status.proxies) == current
    return line(("proxies   ", FAINT), (words, "" if everywhere else DOUBTFUL))


def _revision_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a line for each proxy that serves another revision, or refused one."""
    for of in status.proxies:
        if of.revision != status.revision or of.refused:
            serves = f"serves revision {of.revision}" if of.revision else "serves no table yet"
            why = f", refused: {of.refused}" if of.refused else ""
            since = f", connected since {moment(of.connected_since_ns)}"
            yield indented_line(
                len(_INDENT), (f"{_INDENT}{of.proxy_id} {serves}{why}{since}", DOUBTFUL)
            )


def _saved_table_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a line for each proxy that was started while the control process was away."""
    for of in status.proxies:
        if of.saved_ns >= _ALONE_NS:
            began = f"{of.proxy_id} began by its saved table, for {of.saved_ns / 1e9:.0f} s"
            yield indented_line(
                len(_INDENT), (f"{_INDENT}{began}, until {moment(of.connected_since_ns)}", DOUBTFUL)
            )


def _trouble_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    for of in status.proxies:
        if of.trouble:
            yield indented_line(len(_INDENT), (f"{_INDENT}{of.proxy_id}: {of.trouble}", DOUBTFUL))


def _reach_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a line for each variant of which a proxy can't call every address."""
    for of in status.proxies:
        for reach in of.reach:
            if reach.available < reach.addresses or not reach.addresses:
                found = f"{reach.variant}: {reach.available} of {reach.addresses} addresses"
                why = f": {'; '.join(reach.troubles)}" if reach.troubles else ""
                style = DOUBTFUL if reach.available else BAD
                yield indented_line(
                    len(_INDENT), (f"{_INDENT}{found} on proxy {of.proxy_id}{why}", style)
                )


def reports_line(of: pb.ReportCounts) -> RenderableType:
    """Return what became of the proxies' reports."""
    dropped = sum(of.dropped.values())
    reasons = f" ({counts_text(nonzero(of.dropped))})" if dropped else ""
    return indented_line(
        len(_INDENT),
        ("reports   ", FAINT),
        f"{of.offered:,} offered · {of.received:,} received · ",
        (f"{dropped:,} dropped{reasons}", DOUBTFUL if dropped else ""),
    )
