"""A queue of copies, and that its counts add up at every step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coalmine_router.observer.copies.copy_limits import CopyLimits
from coalmine_router.observer.copies.copy_queue import CopyQueue, Queued, is_wanted
from coalmine_router.observer.observed_request import Copy
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey
from coalmine_router.table import Backend, Match, Route, RouteTable, Shadow, Variant
from tests.doubles.copying import observed_of

SECOND_NS = 10**9
KEY = CopyQueueKey("digits", "shadow", "canary")
CANARY = Variant("canary", "green")
ROUTE = Route("digits", Match("digits"), (Variant("stable", "blue", weight_bp=10_000), CANARY))
LIMITS = CopyLimits(queue_copies_max=4, bytes_max=1_000, wait_ns_max=5 * SECOND_NS)


def queued(size: int = 10, offered_ns: int = 0) -> Queued:
    return Queued(observed_of(size), Copy("shadow", "canary"), ROUTE, CANARY, offered_ns)


def copy_queue(totals: CopyCounts | None = None) -> CopyQueue:
    return CopyQueue(KEY, totals or CopyCounts(), LIMITS)


def test_it_is_bounded_in_copies_and_in_bytes() -> None:
    full, heavy = copy_queue(), copy_queue()
    for _ in range(4):
        full.put(queued())
    assert full.refusal(10) == "queue_full"
    heavy.put(queued(600))
    assert heavy.refusal(500) == "queue_full"
    assert heavy.refusal(400) == ""
    assert heavy.refusal(1_001) == "too_large"


def test_bytes_are_held_until_the_call_has_ended() -> None:
    one = copy_queue()
    one.put(queued(600))
    taken = one.take()
    assert one.refusal(500) == "queue_full"
    one.count_sent(taken, "OK")
    assert one.refusal(500) == ""


def test_a_copy_that_waited_too_long_has_expired() -> None:
    one = copy_queue()
    one.put(queued())
    taken = one.take()
    assert not one.has_expired(taken, 5 * SECOND_NS)
    assert one.has_expired(taken, 5 * SECOND_NS + 1)


def test_the_circuit_is_open_while_all_addresses_are_out() -> None:
    totals = CopyCounts()
    one = copy_queue(totals)
    states = []
    for refused in ("", "no_address", "circuit_open", ""):
        one.note_circuit(refused)
        states.append(totals.circuit)
    assert states == ["closed", "closed", "open", "closed"]


def test_queues_are_wanted_as_long_as_the_table_draws_for_them() -> None:
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
            CopyQueueKey("digits", "audit", "canary"),
            CopyQueueKey("digits", "noise", "stable"),
            CopyQueueKey("digits", "shadow", "stable"),
            CopyQueueKey("digits", "audit", "gone"),
            CopyQueueKey("gone", "shadow", "canary"),
        )
        if is_wanted(each, table)
    ]
    assert wanted == [KEY, CopyQueueKey("digits", "audit", "canary")]


class Steps(RuleBasedStateMachine):
    """Any order of offers, calls and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.totals = CopyCounts()
        self.queue = copy_queue(self.totals)
        self.now_ns = 0
        self.offers = 0
        self.taken: list[Queued] = []
        self.calls: list[Queued] = []

    @rule(size=st.integers(0, 1_200))
    def offer(self, size: int) -> None:
        self.offers += 1
        reason = self.queue.refusal(size)
        if reason:
            self.queue.refuse(reason)
        else:
            self.queue.put(queued(size, self.now_ns))

    @precondition(lambda self: not self.queue.is_empty)
    @rule(max_rps=st.sampled_from([None, 1.0, 100.0]))
    def begin(self, max_rps: float | None) -> None:
        taken = self.queue.take()
        if self.queue.has_expired(taken, self.now_ns):
            self.queue.give_up(taken, "expired")
        elif not self.queue.take_rate(self.now_ns, max_rps):
            self.queue.give_up(taken, "max_rps")
        else:
            self.calls.append(taken)

    @precondition(lambda self: self.calls)
    @rule(
        code=st.sampled_from(["", "OK", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"]),
        chosen=st.integers(0, 100),
    )
    def end(self, code: str, chosen: int) -> None:
        taken = self.calls.pop(chosen % len(self.calls))
        if code:
            self.queue.count_sent(taken, code)
        else:
            self.queue.give_up(taken, "stopping")

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
        assert self.queue._held_bytes <= LIMITS.bytes_max
        assert not self.queue.is_empty or self.calls or self.queue._held_bytes == 0


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=40, stateful_step_count=40)
