"""Whether the callers of a route get answers, and what is wrong. Pure: from its status alone.

The health goes by what is true now or was within the last minute, not by counts since the start.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from coalmine.command_line.failure import Failure
from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine.shown_value import one_line
from coalmine_client.cli.console import counts_text, nonzero
from coalmine_client.cli.policy import STABLE, copy_shares
from coalmine_client.cli.verdict_view import comparing_text

_WHOLE_BP: Final = 10_000
# A variant fails its callers where, within a minute, so many of its requests end with errors that
# are charged to it: at least this number, and this share.
_ERRORS_MIN: Final = 5
_ERRORS_SHARE: Final = 0.01
# So long a process that has just started, or connected, is given to find the others.
_NEW_NS: Final = 5 * 10**9
_NO_PROXY: Final = "no proxy is connected to the control process"
_CIRCUITS_OUT: Final = {"open", "half_open"}


class NotServing(Failure):
    """Something is wrong with the route: its health is DEGRADED or DOWN."""

    exit_code = 5


HealthWord = Literal["SERVING", "DEGRADED", "DOWN"]


@dataclass(frozen=True, slots=True)
class RouteHealth:
    """The state of a route, and a line for each problem, the worst first.

    SERVING: nothing is wrong. DEGRADED: something is, but most requests are answered. DOWN: no
    request is, or fewer than half of them.
    """

    word: HealthWord
    reasons: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise NotServing where anything is wrong."""
        if self.word != "SERVING":
            raise NotServing(self.line)

    def as_json(self) -> dict[str, Any]:
        """Return {state, reasons}."""
        return {"state": self.word, "reasons": list(self.reasons)}

    @property
    def line(self) -> str:
        """The word and the first reason in one line, and how many more there are."""
        more = f"; and {len(self.reasons) - 1:,} more" if len(self.reasons) > 1 else ""
        return one_line(": ".join([self.word, *self.reasons[:1]])) + more


def health_of(status: pb.RouteStatus) -> RouteHealth:
    """Return the health of a route, from its status."""
    found = _Facts.of_status(status)
    down = [] if is_new(status, status.counting_since_ns) else list(_reasons_down(found))
    wrong = (each for each in _problems(found) if not any(each in worse for worse in down))
    reasons = tuple(dict.fromkeys([*down, *wrong]))
    if down:
        return RouteHealth("DOWN", reasons)
    return RouteHealth("DEGRADED" if reasons else "SERVING", reasons)


def is_new(status: pb.RouteStatus, since_ns: int) -> bool:
    """Return whether a process is so new that it can't know everything yet."""
    return since_ns > 0 and 0 <= status.at_ns - since_ns < _NEW_NS


@dataclass(frozen=True, slots=True)
class _Facts:
    """A status, with what it says of each variant by name."""

    status: pb.RouteStatus
    variants: Mapping[str, pb.VariantStatus]
    # What each proxy that serves, and had the time to connect, says of a variant; with its id.
    reach: Mapping[str, Sequence[tuple[str, pb.VariantReach]]]

    @classmethod
    def of_status(cls, status: pb.RouteStatus) -> "_Facts":
        reach: defaultdict[str, list[tuple[str, pb.VariantReach]]] = defaultdict(list)
        for proxy in status.proxies:
            if proxy.revision and not is_new(status, proxy.connected_since_ns):
                for each in proxy.reach:
                    reach[each.variant].append((proxy.proxy_id, each))
        return cls(status, {each.name: each for each in status.variants}, reach)

    def callable_by_proxy(self, name: str) -> list[bool]:
        """Return, for each proxy that reports on a variant, whether it can call it."""
        return [each.available > 0 for _, each in self.reach.get(name, ())]

    def can_answer(self, name: str) -> bool:
        """Return whether a variant answers callers, as far as the router knows.

        If proxies can call it and the control process finds it not ready, its recent answers
        decide: one of the two may not reach a backend that the other does.
        """
        of, reached = self.variants.get(name), self.callable_by_proxy(name)
        if of is None or (reached and not any(reached)):
            return False
        return of.ready or (bool(reached) and of.recent_requests > of.recent_errors)

    def failing_bp(self) -> int:
        """Return the share of requests that nobody can answer. Nothing stands in for stable."""
        if self.can_answer(STABLE):
            return 0
        variants = self.status.route.variants
        return sum(each.weight_bp for each in variants if not self.can_answer(each.name))

    def why_not(self, name: str) -> str:
        """Return why a variant can't be called; "" where every proxy can call it."""
        of, reached = self.variants.get(name), self.callable_by_proxy(name)
        if of is None or not of.ready:
            return f"{name} is not ready: {(of and of.reason) or 'no reason given'}"
        if all(reached):
            return ""
        some = f"{reached.count(False)} of {len(reached)} proxies can't" if any(reached) else ""
        troubles = (each.troubles for _, each in self.reach[name] if not each.available)
        why = next((list(each) for each in troubles if each), ["its backend has no address"])
        return f"{some or 'no proxy can'} call {name}: {'; '.join(why)}"


def _reasons_down(found: _Facts) -> Iterator[str]:
    """Yield why no request is answered, or fewer than half of them are."""
    proxies, failing_bp = found.status.proxies, found.failing_bp()
    if not proxies:
        yield _NO_PROXY
    elif not any(each.revision for each in proxies):
        refused = next((f": {each.refused}" for each in proxies if each.refused), "")
        yield f"no proxy has a route table{refused}"
    elif failing_bp > _WHOLE_BP // 2:
        share = "" if failing_bp == _WHOLE_BP else f"{percent(failing_bp)} of requests fail: "
        yield f"{share}{found.why_not(STABLE)}"


# ---------------------------------------------------------------- what is wrong


def _problems(found: _Facts) -> Iterator[str]:
    """Yield what is wrong, the worst first."""
    status, used = found.status, _variants_in_use(found.status.route)
    if not status.proxies:
        yield _NO_PROXY
    yield from filter(None, map(found.why_not, used))
    yield from _failing_variants(status)
    yield from _refused_requests(status)
    yield from _late_proxies(status)
    yield from (why for name in used for why in _addresses_out_of_reach(found, name))
    yield from _open_circuits(found)
    yield from status.troubles
    yield from (f"proxy {each.proxy_id}: {each.trouble}" for each in status.proxies if each.trouble)
    yield from _lost_reports(status.reports)
    if status.comparing.share_bp < _WHOLE_BP and (words := comparing_text(status.comparing)):
        yield words


def _variants_in_use(route: pb.Route) -> list[str]:
    """Return the variants that callers or comparisons depend on: stable, then the others."""
    used = {each.name for each in route.variants if each.weight_bp}
    used |= {name for (_, name), share_bp in copy_shares(route).items() if share_bp}
    return [STABLE, *(each.name for each in route.variants if each.name in used - {STABLE})]


def _failing_variants(status: pb.RouteStatus) -> Iterator[str]:
    for of in status.variants:
        errors, requests = of.recent_errors, of.recent_requests
        if errors >= _ERRORS_MIN and errors >= _ERRORS_SHARE * requests:
            yield f"{of.name} failed {errors:,} of {requests:,} requests within a minute"


def _refused_requests(status: pb.RouteStatus) -> Iterator[str]:
    if refused := status.recent_turned_away:
        reasons = counts_text(nonzero(status.turned_away))
        yield f"{refused:,} requests turned away within a minute; since the start: {reasons}"


def _late_proxies(status: pb.RouteStatus) -> Iterator[str]:
    """Yield how many proxies don't serve by the table in force, and name the first of them."""
    late = [each for each in status.proxies if _is_late(status, each)]
    if not late:
        return
    among = f"{len(late)} of {len(status.proxies)} proxies don't serve revision {status.revision}"
    has = f"revision {late[0].revision}" if late[0].revision else "no table"
    refused = f", it refused: {late[0].refused}" if late[0].refused else ""
    yield f"{among}: {late[0].proxy_id} has {has}{refused}"


def _is_late(status: pb.RouteStatus, proxy: pb.ProxyStatus) -> bool:
    is_behind = proxy.revision != status.revision
    return bool(proxy.refused) or (is_behind and not is_new(status, proxy.connected_since_ns))


def _addresses_out_of_reach(found: _Facts, name: str) -> Iterator[str]:
    """Yield which proxy, the first of several, can call only some addresses of a variant."""
    for proxy_id, each in found.reach.get(name, ()):
        if 0 < each.available < each.addresses:
            why = f": {'; '.join(each.troubles)}" if each.troubles else ""
            some = f"{each.available} of {each.addresses} addresses"
            yield f"{name} is called at {some} by proxy {proxy_id}{why}"
            return


def _open_circuits(found: _Facts) -> Iterator[str]:
    shares = copy_shares(found.status.route)
    for of in found.status.shadows:
        role = of.role or "shadow"
        is_out = of.circuit in _CIRCUITS_OUT and shares.get((role, of.variant))
        if is_out and not found.why_not(of.variant):
            yield f"{of.variant} gets no copies ({role}): its calls kept failing"


def _lost_reports(reports: pb.ReportCounts) -> Iterator[str]:
    if lost := reports.recent_dropped:
        yield f"{lost:,} reports lost within a minute: counts and evidence lack them"
