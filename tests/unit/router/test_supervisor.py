"""How the router's processes share the time to end."""

import pytest

from coalmine_router.supervisor import Grace


@pytest.mark.parametrize("grace_s", [0.5, 5.0, 30.0, 600.0])
def test_every_process_ends_within_the_grace_period(grace_s: float) -> None:
    grace = Grace.of(grace_s)
    assert grace.proxies_s + grace.control_s <= grace_s
    assert grace.requests_s < grace.proxies_s
    assert grace.copies_s < grace.control_s
