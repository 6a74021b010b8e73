"""What holds for all tests."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from coalmine.process.log import LogHandler
from tests import needs
from tests.doubles.certificates import Authority

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("coalmine", deadline=None)
settings.load_profile("coalmine")


def pytest_configure(config: pytest.Config) -> None:
    needs.demanded()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    needs.check(item)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certs")


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Undo what a command that ran here did to logging: it would write into later tests' output."""
    root = logging.getLogger()
    level = root.level
    yield
    for each in [each for each in root.handlers if isinstance(each, LogHandler)]:
        root.removeHandler(each)
        root.setLevel(level)
    if structlog.is_configured():
        structlog.reset_defaults()
        _forget_loggers()


def _forget_loggers() -> None:
    """Have each module's logger read the configuration anew: it keeps that of its first line."""
    kind = type(structlog.get_logger())
    ours = [module for name, module in sys.modules.items() if name.startswith("coalmine")]
    for each in [value for module in ours for value in vars(module).values()]:
        if isinstance(each, kind):
            vars(each).pop("bind", None)
