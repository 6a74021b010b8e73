"""When a route is SERVING, DEGRADED or DOWN, and what is said to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.route_health import RouteHealth, health_of
from tests.doubles.control import AT_NS

Change = Callable[[pb.RouteStatus], Any]


def reach(variant: str, available: int = 1, addresses: int = 1, *troubles: str) -> pb.VariantReach:
    return pb.VariantReach(
        variant=variant, available=available, addresses=addresses, troubles=troubles
    )


def well(stable: int = 9_000, canary: int = 1_000, **route: Any) -> pb.RouteStatus:
    """Return the status of a route with a shadow, in which nothing is wrong."""
    names = ("stable", "canary", "int8", "parked")
    return pb.RouteStatus(
        route=pb.Route(
            name="digits",
            variants=[
                pb.Variant(name="stable", weight_bp=stable),
                pb.Variant(name="canary", weight_bp=canary),
                pb.Variant(name="int8"),
                pb.Variant(name="parked"),
            ],
            shadows=[pb.Shadow(variant="int8", share_bp=100)],
            **route,
        ),
        revision=7,
        variants=[pb.VariantStatus(name=name, ready=True) for name in names],
        proxies=[
            pb.ProxyStatus(proxy_id=f"p{number}", revision=7, reach=[reach(name) for name in names])
            for number in (1, 2)
        ],
        comparing=pb.Comparing(share_bp=10_000),
    )


def unready(name: str, why: str = "it loads") -> Change:
    def change(status: pb.RouteStatus) -> None:
        (of,) = (each for each in status.variants if each.name == name)
        of.ready, of.reason = False, why

    return change


def unreached(name: str, *proxy_ids: str, why: str = "b:1: refused") -> Change:
    """Let these proxies, or all, call no address of a variant."""

    def change(status: pb.RouteStatus) -> None:
        for proxy in status.proxies:
            for each in proxy.reach:
                if each.variant == name and proxy.proxy_id in (proxy_ids or ("p1", "p2")):
                    each.CopyFrom(reach(name, 0, 1, why))

    return change


def lost(name: str) -> Change:
    return both(unready(name), unreached(name))


def both(*changes: Change) -> Change:
    def change(status: pb.RouteStatus) -> None:
        for each in changes:
            each(status)

    return change


def recent(name: str, requests: int, errors: int) -> Change:
    def change(status: pb.RouteStatus) -> None:
        (of,) = (each for each in status.variants if each.name == name)
        of.recent_requests, of.recent_errors = requests, errors

    return change


def proxies(**fields: Any) -> Change:
    """Change the last proxy."""

    def change(status: pb.RouteStatus) -> None:
        for name, value in fields.items():
            setattr(status.proxies[-1], name, value)

    return change


def partly(status: pb.RouteStatus) -> None:
    for number in range(2):
        status.proxies[number].reach[1].CopyFrom(reach("canary", 1, 3, "b:2: hangs", "b:3: full"))


def no_tables(status: pb.RouteStatus) -> None:
    for each in status.proxies:
        each.revision, each.refused = 0, "no such file"


def no_proxies(status: pb.RouteStatus) -> None:
    del status.proxies[:]


def with_copies(**fields: Any) -> Change:
    def change(status: pb.RouteStatus) -> None:
        status.shadows.add(**fields)

    return change


def setting(**fields: Any) -> Change:
    def change(status: pb.RouteStatus) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                getattr(status, name).update(value)
            elif isinstance(value, int):
                setattr(status, name, value)
            else:
                getattr(status, name).MergeFrom(value)

    return change


def history(status: pb.RouteStatus) -> None:
    """What once was wrong, and no longer is."""
    of = status.variants[0]
    of.requests_by_status.update({"OK": 10, "INTERNAL": 90})
    of.fallbacks["not_ready"] = 3
    status.turned_away["in_flight"] = 9
    status.reports.dropped["buffer_full"] = 9
    status.comparing.left_out = 7
    status.proxies[0].saved_ns = 34 * 10**9
    status.proxies[0].connected_since_ns = AT_NS
    status.shadows.add(variant="int8", failed=9, dropped={"queue_full": 3}, circuit="closed")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: None, id="nothing"),
        pytest.param(history, id="what is over"),
        pytest.param(lost("parked"), id="a variant that nobody gets"),
        pytest.param(recent("canary", 1_000, 9), id="errors in fewer than one in a hundred"),
        pytest.param(recent("canary", 20, 4), id="four errors"),
        pytest.param(
            with_copies(variant="parked", role="shadow", circuit="open"), id="no longer copied"
        ),
    ],
)
def test_a_route_with_nothing_wrong_now_is_serving(change: Change) -> None:
    status = well()
    change(status)
    assert health_of(status) == RouteHealth("SERVING")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lost("stable"), "90% of requests fail: stable is not ready: it loads"),
        (both(lost("stable"), lost("canary")), "stable is not ready: it loads"),
        (unreached("stable"), "90% of requests fail: no proxy can call stable: b:1: refused"),
        (unready("stable"), "90% of requests fail: stable is not ready: it loads"),
        (
            both(unready("stable"), recent("stable", 9, 9)),
            "90% of requests fail: stable is not ready: it loads",
        ),
        (no_proxies, "no proxy is connected to the control process"),
        (no_tables, "no proxy has a route table: no such file"),
    ],
)
def test_a_route_that_answers_fewer_than_half_of_its_callers_is_down(
    change: Change, why: str
) -> None:
    status = well()
    change(status)
    found = health_of(status)
    assert (found.word, found.reasons[0]) == ("DOWN", why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lost("canary"), "canary is not ready: it loads"),
        (lost("int8"), "int8 is not ready: it loads"),
        (unready("canary", ""), "canary is not ready: no reason given"),
        (
            both(unready("stable"), recent("stable", 9, 1)),
            "stable is not ready: it loads",
        ),
        (unreached("canary"), "no proxy can call canary: b:1: refused"),
        (unreached("stable", "p2"), "1 of 2 proxies can't call stable: b:1: refused"),
        (
            partly,
            "canary is called at 1 of 3 addresses by proxy p1: b:2: hangs; b:3: full",
        ),
        (recent("canary", 50, 5), "canary failed 5 of 50 requests within a minute"),
        (
            setting(recent_turned_away=3, turned_away={"in_flight": 9}),
            "3 requests turned away within a minute; since the start: in_flight 9",
        ),
        (
            proxies(revision=6, refused="no such file"),
            "1 of 2 proxies don't serve revision 7: p2 has revision 6, it refused: no such file",
        ),
        (proxies(revision=0), "1 of 2 proxies don't serve revision 7: p2 has no table"),
        (
            with_copies(variant="int8", role="shadow", circuit="open"),
            "int8 gets no copies (shadow): its calls kept failing",
        ),
        (proxies(trouble="t.pb: is not saved: full"), "proxy p2: t.pb: is not saved: full"),
        (setting(troubles=["x.db: nothing is kept: full"]), "x.db: nothing is kept: full"),
        (
            setting(reports=pb.ReportCounts(recent_dropped=1_200)),
            "1,200 reports lost within a minute: counts and evidence lack them",
        ),
        (
            setting(comparing=pb.Comparing(share_bp=2_500, waiting=8, left_out=9)),
            "comparing 1 in 4: 8 wait (0.0 MiB), 9 left out so far, 0 processes compare",
        ),
    ],
)
def test_a_route_with_something_wrong_that_answers_its_callers_is_degraded(
    change: Change, why: str
) -> None:
    status = well()
    change(status)
    assert health_of(status) == RouteHealth("DEGRADED", (why,))


def at(seconds: float, **since: float) -> Change:
    """Let it be so late, with the control process, and proxies by number, there since then."""

    def change(status: pb.RouteStatus) -> None:
        status.at_ns = AT_NS + round(seconds * 10**9)
        status.counting_since_ns = AT_NS + round(since.get("control", -3_600) * 10**9)
        for number, proxy in enumerate(status.proxies, 1):
            proxy.connected_since_ns = AT_NS + round(since.get(f"p{number}", -3_600) * 10**9)

    return change


def test_a_proxy_that_has_just_connected_is_given_time_to_find_the_backends() -> None:
    status = well()
    both(unreached("stable", "p2"), proxies(revision=6), at(4.9, p2=0))(status)
    assert health_of(status).word == "SERVING"
    at(5, p2=0)(status)
    assert len(health_of(status).reasons) == 2
    both(at(1, p2=0), proxies(refused="no such file"))(status)
    assert len(health_of(status).reasons) == 1


@pytest.mark.parametrize("change", [no_proxies, unready("stable", "not asked yet"), no_tables])
def test_a_control_process_that_has_just_started_calls_nothing_down(change: Change) -> None:
    status = well()
    both(change, at(4.9, control=0, p1=0, p2=0))(status)
    assert health_of(status).word == "DEGRADED"
    at(5, control=0, p1=0, p2=0)(status)
    assert health_of(status).word == "DOWN"


def test_a_stable_without_weight_that_is_lost_degrades_the_route_it_stands_behind() -> None:
    status = well(stable=0, canary=10_000)
    lost("stable")(status)
    assert health_of(status) == RouteHealth("DEGRADED", ("stable is not ready: it loads",))
    lost("canary")(status)
    assert health_of(status).word == "DOWN"


def test_half_of_the_requests_answered_is_not_down() -> None:
    status = well(stable=5_000, canary=5_000)
    lost("stable")(status)
    assert health_of(status).word == "DEGRADED"


def test_an_audited_canary_needs_no_weight_of_its_own_to_be_missed() -> None:
    status = well(stable=10_000, canary=0, noise_bp=100)
    lost("canary")(status)
    assert health_of(status).word == "SERVING"
    status.route.shadows.add(variant="canary", share_bp=1)
    assert health_of(status).word == "DEGRADED"


def test_what_is_wrong_is_said_once_and_the_worst_comes_first() -> None:
    status = well()
    changes = (setting(troubles=["disk full"]), lost("int8"), lost("stable"), lost("canary"))
    both(*changes)(status)
    assert health_of(status).reasons == (
        "stable is not ready: it loads",
        "canary is not ready: it loads",
        "int8 is not ready: it loads",
        "disk full",
    )


def test_a_status_of_nothing_at_all_is_down_and_no_error() -> None:
    assert health_of(pb.RouteStatus()).word == "DOWN"
    status = well()
    del status.variants[:]
    assert health_of(status).word == "DOWN"


def test_256_proxies_and_64_variants_are_looked_at_in_no_time() -> None:
    status = well()
    names = [f"v{number}" for number in range(64)]
    status.variants.extend(pb.VariantStatus(name=name, ready=True) for name in names)
    status.route.variants.extend(pb.Variant(name=name) for name in names)
    status.route.shadows.extend(pb.Shadow(variant=name, share_bp=1) for name in names)
    for number in range(254):
        status.proxies.add(proxy_id=f"q{number}", revision=7, reach=map(reach, names))
    assert health_of(status).word == "SERVING"
