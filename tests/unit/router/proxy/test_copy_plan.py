"""Which copies a request gets."""

import math
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_router.proxy.copy_plan import CopyDraw, CopyPlan
from coalmine_router.table import STABLE, WHOLE_BP, Match, Route, Shadow, Variant


def route(
    *,
    canary_bp: int = 1_000,
    other_bp: int = 0,
    shadows: tuple[Shadow, ...] = (),
    audit_bp: int = 0,
    noise_bp: int = 0,
) -> Route:
    weights = {STABLE: WHOLE_BP - canary_bp - other_bp, "canary": canary_bp, "int8": other_bp}
    return Route(
        name="digits",
        match=Match("digits"),
        variants=tuple(Variant(name, "blue", weight_bp=weight) for name, weight in weights.items()),
        shadows=shadows,
        audit_bp=audit_bp,
        noise_bp=noise_bp,
    )


def drawn(of: Route, answering: str, times: int, *, is_split: bool = True) -> list[CopyPlan]:
    draw = CopyDraw(of, random.Random(7).random)
    variant = of.variant(answering)
    return [draw.draw(variant, is_split=is_split) for _ in range(times)]


@settings(max_examples=30)
@given(share_bp=st.integers(1, WHOLE_BP), seed=st.integers(0, 2**32))
def test_a_shadow_gets_exactly_its_share(share_bp: int, seed: int) -> None:
    of = route(shadows=(Shadow("canary", share_bp),))
    draw = CopyDraw(of, random.Random(seed).random)
    divisor = math.gcd(share_bp, WHOLE_BP)
    for _ in range(2):
        given_out = [draw.draw(of.stable, is_split=True) for _ in range(WHOLE_BP // divisor)]
        assert sum(bool(each.shadows) for each in given_out) * divisor == share_bp


def test_nobody_gets_the_same_request_as_shadow_and_for_an_audit() -> None:
    of = route(shadows=(Shadow("canary", 5_000),), audit_bp=WHOLE_BP)
    found = drawn(of, STABLE, 2_000)
    assert {(each.shadows, each.audit) for each in found} == {(("canary",), ""), ((), "canary")}


def test_a_variant_is_no_shadow_of_its_own_answer() -> None:
    of = route(shadows=(Shadow("canary", WHOLE_BP),))
    assert drawn(of, "canary", 3) == [CopyPlan()] * 3
    assert drawn(of, STABLE, 3) == [CopyPlan(("canary",))] * 3


@given(
    shares=st.tuples(*[st.sampled_from([0, 100, 500, 2_500, 10_000])] * 3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_whoever_has_the_smaller_share_gets_requests_that_the_others_get_too(
    shares: tuple[int, int, int], seed: int
) -> None:
    shadow_bp, audit_bp, noise_bp = shares
    shadows = (Shadow("int8", shadow_bp),) if shadow_bp else ()
    of = route(shadows=shadows, audit_bp=audit_bp, noise_bp=noise_bp)
    draw = CopyDraw(of, random.Random(seed).random)
    seen = Counter(
        (bool(each.shadows), bool(each.audit), each.noise)
        for each in (draw.draw(of.stable, is_split=True) for _ in range(WHOLE_BP))
    )
    got = [sum(n for kind, n in seen.items() if kind[place]) for place in range(3)]
    assert got == [shadow_bp, audit_bp, noise_bp]
    assert sum(n for kind, n in seen.items() if any(kind)) == max(shares), "never one without more"


def test_an_audit_goes_to_the_other_side_of_the_split() -> None:
    of = route(canary_bp=1_000, other_bp=1_000, audit_bp=WHOLE_BP)
    assert {each.audit for each in drawn(of, "canary", 10)} == {STABLE}
    assert Counter(each.audit for each in drawn(of, STABLE, 10)) == {"canary": 5, "int8": 5}


def test_an_audit_goes_nowhere_where_the_other_side_has_no_weight() -> None:
    of = route(canary_bp=0, audit_bp=WHOLE_BP)
    assert drawn(of, STABLE, 3) == [CopyPlan()] * 3


def test_who_was_pinned_is_not_audited() -> None:
    of = route(audit_bp=WHOLE_BP, shadows=(Shadow("int8", WHOLE_BP),))
    assert drawn(of, "canary", 2, is_split=False) == [CopyPlan(("int8",))] * 2


def test_noise_is_stables_alone() -> None:
    of = route(noise_bp=WHOLE_BP)
    assert drawn(of, STABLE, 2) == [CopyPlan(noise=True)] * 2
    assert drawn(of, "canary", 2) == [CopyPlan()] * 2


def test_once_stable_answers_instead_nothing_is_left_to_audit() -> None:
    fallen = CopyPlan((STABLE, "int8"), STABLE, noise=False).when_stable_answers()
    assert fallen == CopyPlan(("int8",))
    assert not CopyPlan((STABLE,), STABLE).when_stable_answers().has_any
