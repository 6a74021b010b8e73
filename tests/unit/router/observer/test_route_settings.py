"""What the observer makes of a route's settings."""

from typing import Any

import pytest

from coalmine_router.observer.route_settings import UNSET, RouteSettings, settings_of
from tests.doubles.reports import UNUSED, router_config, settings


def of(**route: Any) -> RouteSettings:
    config = router_config(route=route, stable=UNUSED, canary=UNUSED)
    return settings_of(settings(config)["digits"])


@pytest.mark.parametrize(
    "changed",
    [
        {"compare": {"default": {"rule": "exact"}}},
        {"compare": {"outputs": {"logits": {"rule": "argmax"}}}},
        {"compare": {"batched": False}},
        {"gates": {"max_mismatch_rate": 0.02}},
        {"gates": {"alpha": 0.01}},
        {"gates": {"slow": {"over": "1s"}}},
        {"noise": 1},
        {"segment": {"metadata": "x-tenant"}},
    ],
)
def test_what_evidence_rests_on_is_another_when_rules_or_gates_are(changed: Any) -> None:
    assert of(**changed).goes_by != of().goes_by


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": {"canary": 10, "stable": 90}},
        {"shadows": {"canary": {"share": 100, "max_rps": 5}}},
        {"audit": 5},
        {"timeout": "1s"},
        {"kept": {"capture": "none"}},
        {"compare": {"default": {"rule": "close"}}},
    ],
)
def test_what_changes_neither_rules_nor_gates_lets_evidence_go_on(changed: Any) -> None:
    assert of(**changed).goes_by == of().goes_by


def test_another_share_of_noise_is_the_same_question() -> None:
    assert of(noise=1).goes_by == of(noise=50).goes_by


def test_where_a_route_has_noise_no_pair_is_judged_as_if_it_had_none() -> None:
    assert of(noise=1).gates.has_noise
    assert not of().gates.has_noise


def test_what_may_be_told_is_as_the_file_says() -> None:
    found = of(sensitive=True, gates={"slow": {"over": "250ms"}}, segment={"metadata": "x-tenant"})
    assert (found.capture, found.slow_over_ns, found.segment_key) == (
        *("shapes", 250_000_000, "x-tenant"),
    )
    assert (of().capture, of().slow_over_ns, of().segment_key) == ("full", None, "")


def test_of_a_route_that_the_file_does_not_have_no_value_is_kept() -> None:
    assert UNSET.capture == "shapes"
