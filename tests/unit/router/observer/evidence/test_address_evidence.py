"""What is found at each address of a variant, beside its others."""

import json

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.address_evidence import ADDRESSES_MAX, VariantAddresses
from coalmine_router.observer.evidence.saved import from_text, merged_evidence, to_text
from tests.doubles.evidence import PAIR, a_trial, an_evidence

A, B, C = "10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"
MINUTE = 60 * 10**9


def seen(*shares: tuple[str, float]) -> VariantAddresses:
    made = VariantAddresses()
    for at, (address, share) in enumerate(shares, 1):
        made.add(address, share, at_ns=at)
    return made


def test_an_address_has_what_was_found_there_and_when_it_last_was() -> None:
    found = seen((A, 0.0), (B, 0.25), (A, 1.0), (B, 0.0))
    found.add(B, 1.0, at_ns=9, has_failed=True)
    one, other = found.by_name[A], found.by_name[B]
    assert (one.compared, one.mismatch, one.failed, one.max_seen_ns) == (2, 1, 0, 3)
    assert (other.compared, other.mismatch, other.failed, other.max_seen_ns) == (3, 1, 1, 9)
    assert (found.compared, found.wrong) == (5, 2.25)


def test_an_answer_of_nobody_known_counts_at_no_address() -> None:
    assert seen(("", 1.0)) == VariantAddresses()


def test_an_answer_stands_beside_what_the_others_gave_since_the_last_one() -> None:
    found = seen((A, 1.0), (B, 0.0), (C, 1.0), (A, 1.0)).by_name[A]
    assert (found.worse, found.same, found.better) == (0.5, 0.5, 0.0)


def test_answers_with_none_of_the_others_between_say_nothing_of_a_difference() -> None:
    found = seen((A, 1.0), (A, 1.0), (A, 1.0)).by_name[A]
    assert (found.worse, found.same, found.better) == (0.0, 0.0, 0.0)


def test_an_address_that_is_new_is_not_set_against_what_came_before_it() -> None:
    found = seen((A, 0.0), (A, 0.0), (B, 1.0), (A, 0.0), (B, 1.0)).by_name[B]
    assert (found.worse, found.same) == (1.0, 0.0)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 1)), max_size=60))
def test_differences_are_each_between_minus_one_and_one(shares: list[tuple[str, float]]) -> None:
    for each in seen(*shares).by_name.values():
        sums = (each.worse, each.same, each.better)
        assert min(sums) >= -1e-9
        assert abs(sum(sums) - round(sum(sums))) < 1e-6
        assert sum(sums) <= each.compared + 1e-6


# ---------------------------------------------------------------- when


def test_an_address_is_seen_within_so_much_of_the_trials_traffic() -> None:
    found = VariantAddresses()
    found.add(A, 0.0, at_ns=0)
    found.add(B, 0.0, at_ns=10 * MINUTE)
    assert found.unseen((A, B, C), 10 * MINUTE) == [C]
    assert found.unseen((A, B, C), 10 * MINUTE - 1) == [A, C]


def test_a_clock_that_is_set_back_makes_nobody_unseen() -> None:
    found = VariantAddresses()
    found.add(A, 0.0, at_ns=100 * MINUTE)
    found.add(B, 0.0, at_ns=1 * MINUTE)
    assert found.unseen((A, B), 1) == []


# ---------------------------------------------------------------- bounds


def test_over_the_bound_the_longest_unseen_is_let_go_and_counted() -> None:
    found = VariantAddresses()
    for number in range(ADDRESSES_MAX):
        found.add(f"pod-{number}", 0.0, at_ns=number)
    found.add("pod-0", 0.0, at_ns=1_000)
    found.add("pod-new", 0.0, at_ns=1_001)
    assert len(found.by_name) == ADDRESSES_MAX
    assert "pod-1" not in found.by_name
    assert {"pod-0", "pod-new"} <= found.by_name.keys()
    assert (found.let_go, found.known) == (1, ADDRESSES_MAX + 1)


def test_an_address_that_comes_back_begins_anew() -> None:
    found = VariantAddresses()
    for number in (*range(ADDRESSES_MAX + 1), 0):
        found.add(f"pod-{number}", 1.0, at_ns=number)
    again = found.by_name["pod-0"]
    assert (again.compared, again.worse, again.same) == (1, 0.0, 0.0)


# ---------------------------------------------------------------- kept, and added up


def test_evidence_that_was_saved_before_there_were_addresses_has_none() -> None:
    text = json.loads(to_text(a_trial()))
    del text["evidence"]["candidate_addresses"], text["evidence"]["reference_addresses"]
    found = from_text(json.dumps(text), PAIR, 1, began_ns=1, ended_ns=0).evidence
    assert found.candidate_addresses == found.reference_addresses == VariantAddresses()
    assert found.rows == a_trial().evidence.rows


def test_what_two_routers_saw_of_an_address_adds_up() -> None:
    one, other = an_evidence(), an_evidence()
    one.candidate_addresses = seen((A, 1.0), (B, 0.0), (A, 1.0))
    other.candidate_addresses = seen((C, 0.0), (A, 1.0), (C, 0.0), (A, 0.0), (A, 0.0))
    both = merged_evidence(one, other).candidate_addresses
    assert both.by_name.keys() == {A, B, C}
    assert (both.by_name[A].compared, both.by_name[A].mismatch) == (5, 3)
    assert (both.compared, both.wrong, both.max_seen_ns) == (8, 3.0, 5)
    both.add(A, 1.0, at_ns=9)
    assert both.by_name[A].worse == 1.0, "nothing but the truth came between"
