"""What holds for all tests."""

import pytest
from hypothesis import settings

from tests import needs

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("coalmine", deadline=None)
settings.load_profile("coalmine")


def pytest_configure(config: pytest.Config) -> None:
    needs.demanded()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    needs.check(item)
