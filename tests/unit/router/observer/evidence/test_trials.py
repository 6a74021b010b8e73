"""When a trial begins, which one evidence belongs to, and which one is told of."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.trial import VERSION_CHARS_MAX, Trial, TrialKey
from coalmine_router.observer.evidence.trials import TrialLimits, Trials

PAIR = Pair("digits", "stable", "canary")
SETTINGS = TrialKey("rules", "definition")
KEY = TrialKey("rules", "definition", "1", "2")


def versions(reference: str, candidate: str) -> TrialKey:
    return replace(KEY, reference_version=reference, candidate_version=candidate)


def numbers(trials: Trials) -> list[int]:
    return [each.number for each in trials.all_open()]


def current(trials: Trials) -> Trial:
    (found,) = trials.current_trials()
    return found


def test_evidence_under_the_same_models_and_rules_is_of_one_trial() -> None:
    trials = Trials()
    first = trials.obtain(PAIR, KEY, 10)
    assert trials.obtain(PAIR, KEY, 20) is first
    assert (first.number, first.began_ns, first.why, first.ended_ns) == (1, 10, "first", 0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rules": "others"}, "rules"),
        ({"definition": "another"}, "variant"),
        ({"reference_version": "7"}, "reference version"),
        ({"candidate_version": "7"}, "candidate version"),
        ({"rules": "others", "candidate_version": "7"}, "rules"),
    ],
)
def test_a_change_begins_a_new_trial_that_says_why(changed: dict[str, str], why: str) -> None:
    trials = Trials()
    before = trials.obtain(PAIR, KEY, 10)
    after = trials.obtain(PAIR, replace(KEY, **changed), 20)
    assert after is not before
    assert (after.number, after.began_ns, after.why) == (2, 20, why)
    assert current(trials) is after
    assert before.ended_ns == 0


def test_pairs_have_trials_and_numbers_of_their_own() -> None:
    trials = Trials()
    trials.obtain(PAIR, KEY, 1)
    trials.obtain(PAIR, versions("1", "3"), 2)
    other = trials.obtain(PAIR._replace(candidate="int8"), KEY, 3)
    assert other.number == 1
    assert [each.number for each in trials.current_trials("digits")] == [2, 1]
    assert list(trials.current_trials("faces")) == []


def test_while_versions_are_rolled_each_answer_counts_for_its_own_and_none_flaps() -> None:
    trials = Trials()
    old, new = KEY, versions("1", "3")
    first = trials.obtain(PAIR, old, 1)
    second = trials.obtain(PAIR, new, 2)
    for _ in range(200):
        assert trials.obtain(PAIR, old, 3) is first
        assert trials.obtain(PAIR, new, 3) is second
        assert current(trials) is second
    assert sorted(numbers(trials)) == [1, 2]


def test_after_a_rollback_the_older_trial_goes_on_with_what_it_knew() -> None:
    trials = Trials()
    old, new = KEY, versions("1", "3")
    first = trials.obtain(PAIR, old, 1)
    first.evidence.rows = 7
    second = trials.obtain(PAIR, new, 2)
    for _ in range(49):
        trials.obtain(PAIR, old, 3)
    assert current(trials) is second
    assert trials.obtain(PAIR, old, 3) is first
    assert current(trials) is first
    assert first.evidence.rows == 7
    assert trials.obtain(PAIR, new, 4) is second
    assert current(trials) is first


def test_one_answer_of_the_current_version_begins_the_count_of_a_rollback_again() -> None:
    trials = Trials()
    trials.obtain(PAIR, KEY, 1)
    second = trials.obtain(PAIR, versions("1", "3"), 2)
    for _ in range(40):
        trials.obtain(PAIR, KEY, 3)
    trials.obtain(PAIR, versions("1", "3"), 3)
    for _ in range(49):
        trials.obtain(PAIR, KEY, 3)
    assert current(trials) is second


def test_a_failed_candidate_says_no_version_and_does_not_speak_for_the_current_one() -> None:
    trials = Trials()
    first = trials.obtain(PAIR, KEY, 1)
    second = trials.obtain(PAIR, versions("1", "3"), 2)
    for _ in range(50):
        assert trials.obtain(PAIR, versions("1", ""), 3) is second
        trials.obtain(PAIR, KEY, 3)
    assert current(trials) is first


def test_an_event_of_the_split_belongs_to_the_current_trial() -> None:
    trials = Trials()
    trials.obtain(PAIR, KEY, 1)
    second = trials.obtain(PAIR, versions("1", "3"), 2)
    assert trials.obtain_current(PAIR, SETTINGS, 3) is second


def test_a_trial_that_an_event_began_learns_its_versions_from_the_first_comparison() -> None:
    trials = Trials()
    begun = trials.obtain_current(PAIR, SETTINGS, 1)
    assert begun.key == SETTINGS
    assert trials.obtain(PAIR, versions("", "2"), 2) is begun
    assert trials.obtain(PAIR, KEY, 3) is begun
    assert begun.key == KEY
    assert trials.obtain(PAIR, versions("1", "3"), 4).number == 2


def test_a_variant_defined_anew_begins_a_trial_though_nothing_is_ever_compared() -> None:
    trials = Trials()
    trials.obtain_current(PAIR, SETTINGS, 1)
    redefined = replace(SETTINGS, definition="another")
    after = trials.obtain_current(PAIR, redefined, 2)
    assert (after.number, after.why) == (2, "variant")
    assert trials.obtain_current(PAIR, redefined, 3) is after


def test_settings_that_come_back_resume_their_trial_at_once() -> None:
    trials = Trials()
    first = trials.obtain(PAIR, KEY, 1)
    trials.obtain(PAIR, replace(KEY, rules="others"), 2)
    assert trials.obtain(PAIR, KEY, 3) is first
    assert current(trials) is first
    trials.obtain(PAIR, replace(KEY, rules="others"), 4)
    assert trials.obtain_current(PAIR, SETTINGS, 5) is first
    assert current(trials) is first


def test_the_least_recently_used_trial_ends_where_there_are_too_many_open() -> None:
    trials = Trials(TrialLimits(open_of_pair=3))
    for each in range(3):
        trials.obtain(PAIR, versions("1", str(each)), each)
    trials.obtain(PAIR, versions("1", "0"), 5)
    trials.take_changed()
    trials.obtain(PAIR, versions("1", "9"), 6)
    assert sorted(numbers(trials)) == [1, 3, 4]
    ended = [each for each in trials.take_changed() if each.ended_ns]
    assert [(each.number, each.ended_ns) for each in ended] == [(2, 6)]


def test_the_current_trial_never_ends_for_a_new_one_of_others() -> None:
    trials = Trials(TrialLimits(open_of_pair=2))
    trials.obtain(PAIR, versions("1", "1"), 1)
    second = trials.obtain(PAIR, versions("1", "2"), 2)
    trials.obtain(PAIR, versions("1", "1"), 3)
    trials.obtain(PAIR, versions("1", "3"), 4)
    assert second in list(trials.all_open())


def test_ended_trials_that_no_disk_takes_are_bounded_and_counted() -> None:
    trials = Trials(TrialLimits(open_of_pair=2, ended_waiting=5))
    for each in range(20):
        trials.obtain(PAIR, versions("1", str(each)), each)
    taken = trials.take_changed()
    assert len(taken) == 7
    assert trials.forgotten == 13


def test_pairs_over_the_bound_are_counted_and_not_kept() -> None:
    trials = Trials(TrialLimits(pairs=2))
    for each in "abcd":
        trials.obtain(Pair("digits", "stable", each), KEY, 1)
    trials.obtain_current(Pair("digits", "stable", "e"), SETTINGS, 1)
    assert [each.pair.candidate for each in trials.current_trials()] == ["a", "b"]
    assert trials.left_out == 3
    assert {each.number for each in trials.take_changed()} == {1}


def test_a_version_as_long_as_a_model_likes_is_cut() -> None:
    trials = Trials()
    first = trials.obtain(PAIR, versions("v" * 10_000, ""), 1)
    assert len(first.key.reference_version) == VERSION_CHARS_MAX
    assert trials.obtain(PAIR, versions("v" * 10_000, ""), 1) is first


def test_what_is_taken_and_not_kept_is_taken_again() -> None:
    trials = Trials()
    trial = trials.obtain(PAIR, KEY, 1)
    assert trials.take_changed() == [trial]
    assert trials.take_changed() == []
    trials.mark_changed([trial])
    assert trials.take_changed() == [trial]


def test_restored_trials_go_on_and_numbers_with_them() -> None:
    before = Trials()
    for each in ("2", "3"):
        before.obtain(PAIR, versions("1", each), 1)
    kept = before.take_changed()
    after = Trials()
    after.restore(reversed(kept), {PAIR: 9, PAIR._replace(candidate="gone"): 4}, 5)
    assert current(after).key == versions("1", "3")
    assert after.obtain(PAIR, KEY, 6).number == 1
    assert after.obtain(PAIR, versions("1", "4"), 7).number == 10
    assert after.obtain(PAIR._replace(candidate="gone"), KEY, 8).number == 5


def test_what_is_restored_over_the_bounds_ends() -> None:
    before = Trials()
    for each in range(6):
        before.obtain(PAIR, versions("1", str(each)), 1)
    after = Trials(TrialLimits(open_of_pair=2))
    after.restore(before.take_changed(), {PAIR: 6}, 5)
    assert numbers(after) == [5, 6]
    assert [each.ended_ns for each in after.take_changed()] == [5, 5, 5, 5]


@given(st.lists(st.tuples(st.sampled_from("12"), st.sampled_from(["", "1", "2", "3", "4"]))))
def test_open_trials_never_share_a_key_and_one_of_them_is_current(
    answers: list[tuple[str, str]],
) -> None:
    trials = Trials(TrialLimits(open_of_pair=3, resumed_after=2))
    for now_ns, (reference, candidate) in enumerate(answers):
        found = trials.obtain(PAIR, versions(reference, candidate), now_ns)
        assert found.key.fits(versions(reference, candidate))
        opened = list(trials.all_open())
        assert len({each.key for each in opened}) == len(opened) <= 3
        assert len({each.number for each in opened}) == len(opened)
        assert current(trials) in opened
        assert current(trials).turn == max(each.turn for each in opened)
