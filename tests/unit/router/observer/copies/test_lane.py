"""A lane's queue, and that its counts add up at every step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coalmine_router.observer.copies.lane import Lane, Queued, is_wanted
from coalmine_router.observer.copies.limits import CopyLimits
from coalmine_router.observer.exchange import Copy
from coalmine_router.observer.totals import LaneKey, LaneTotals
from coalmine_router.table import Backend, Match, Route, RouteTable, Shadow, Variant
from tests.doubles.copying import exchange_of

SECOND_NS = 10**9
KEY = LaneKey("digits", "shadow", "canary")
CANARY = Variant("canary", "green")
ROUTE = Route("digits", Match("digits"), (Variant("stable", "blue", weight_bp=10_000), CANARY))
LIMITS = CopyLimits(queue_copies_max=4, bytes_max=1_000, wait_ns_max=5 * SECOND_NS)


def queued(size: int = 10, offered_ns: int = 0) -> Queued:
    backend = Backend("green", ("127.0.0.1:1",))
    return Queued(exchange_of(size), Copy("shadow", "canary"), ROUTE, CANARY, backend, offered_ns)


def lane(totals: LaneTotals | None = None) -> Lane:
    return Lane(KEY, totals or LaneTotals(), LIMITS)


def test_it_is_bounded_in_copies_and_in_bytes() -> None:
    full, heavy = lane(), lane()
    for _ in range(4):
        full.put(queued())
    assert full.refusal(10, 0) == "queue_full"
    heavy.put(queued(600))
    assert heavy.refusal(500, 0) == "queue_full"
    assert heavy.refusal(400, 0) == ""
    assert heavy.refusal(1_001, 0) == "too_large"


def test_bytes_are_held_until_the_call_has_ended() -> None:
    one = lane()
    one.put(queued(600))
    taken = one.take()
    assert one.refusal(500, 0) == "queue_full"
    one.sent(taken, "OK")
    assert one.refusal(500, 0) == ""


def test_a_copy_that_waited_too_long_is_not_sent() -> None:
    one = lane()
    one.put(queued())
    assert one.begin(one.take(), 5 * SECOND_NS + 1, None) == "expired"


def test_an_open_circuit_refuses_what_waits_and_what_is_offered() -> None:
    one = lane()
    for _ in range(LIMITS.circuit.failures):
        one.put(queued())
        era = one.begin(one.take(), 0, None)
        assert isinstance(era, int)
        one.heard(era, "UNAVAILABLE", 0)
    assert one.refusal(10, 0) == "circuit_open"
    assert one.begin(queued(), 0, None) == "circuit_open"
    assert one.refusal(10, SECOND_NS) == ""


def test_an_error_that_the_variant_itself_answers_opens_no_circuit() -> None:
    totals = LaneTotals()
    one = lane(totals)
    for _ in range(50):
        era = one.begin(queued(), 0, None)
        assert isinstance(era, int)
        one.heard(era, "INTERNAL", 0)
    assert totals.circuit == "closed"


def test_a_try_is_not_spent_on_a_copy_over_the_rate() -> None:
    one = lane()
    era = one.begin(queued(), 0, 1.0)
    assert isinstance(era, int)
    for _ in range(LIMITS.circuit.failures):
        one.heard(era, "UNAVAILABLE", 0)
    assert isinstance(one.begin(queued(offered_ns=SECOND_NS), SECOND_NS, 1.0), int)
    assert one.begin(queued(offered_ns=SECOND_NS), SECOND_NS, 1.0) == "circuit_open"


def test_lanes_are_wanted_as_long_as_the_table_draws_for_them() -> None:
    drawn = Route(
        "digits",
        Match("digits"),
        ROUTE.variants,
        shadows=(Shadow("canary", 100),),
        audit_bp=5,
    )
    backends = (Backend("blue", ("a:1",)), Backend("green", ("b:1",)))
    table = RouteTable(1, backends, (drawn,))
    wanted = [
        each
        for each in (
            KEY,
            LaneKey("digits", "audit", "canary"),
            LaneKey("digits", "noise", "stable"),
            LaneKey("digits", "shadow", "stable"),
            LaneKey("digits", "audit", "gone"),
            LaneKey("gone", "shadow", "canary"),
        )
        if is_wanted(each, table)
    ]
    assert wanted == [KEY, LaneKey("digits", "audit", "canary")]


class Steps(RuleBasedStateMachine):
    """Any order of offers, calls and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.totals = LaneTotals()
        self.lane = lane(self.totals)
        self.now_ns = 0
        self.offers = 0
        self.taken: list[Queued] = []
        self.calls: list[tuple[Queued, int]] = []

    @rule(size=st.integers(0, 1_200))
    def offer(self, size: int) -> None:
        self.offers += 1
        reason = self.lane.refusal(size, self.now_ns)
        if reason:
            self.lane.refuse(reason)
        else:
            self.lane.put(queued(size, self.now_ns))

    @precondition(lambda self: not self.lane.is_empty)
    @rule(max_rps=st.sampled_from([None, 1.0, 100.0]))
    def begin(self, max_rps: float | None) -> None:
        taken = self.lane.take()
        era = self.lane.begin(taken, self.now_ns, max_rps)
        if isinstance(era, str):
            self.lane.give_up(taken, era)
        else:
            self.calls.append((taken, era))

    @precondition(lambda self: self.calls)
    @rule(
        code=st.sampled_from(["", "OK", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"]),
        chosen=st.integers(0, 100),
    )
    def end(self, code: str, chosen: int) -> None:
        taken, era = self.calls.pop(chosen % len(self.calls))
        self.lane.heard(era, code, self.now_ns)
        if code:
            self.lane.sent(taken, code)
        else:
            self.lane.give_up(taken, "stopping")

    @rule(later_ns=st.integers(0, 4 * SECOND_NS))
    def wait(self, later_ns: int) -> None:
        self.now_ns += later_ns

    @invariant()
    def it_adds_up(self) -> None:
        each = self.totals
        assert each.offered == self.offers
        assert each.under_way == len(self.calls)
        assert each.offered == (each.dropped.total() + each.waiting + each.under_way + each.sent)
        assert each.sent == each.timed_out + each.failed + each.answered
        assert self.lane._held_bytes <= LIMITS.bytes_max
        assert not self.lane.is_empty or self.calls or self.lane._held_bytes == 0


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=40, stateful_step_count=40)
