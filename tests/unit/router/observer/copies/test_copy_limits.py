"""Which settings hold for a copy."""

from coalmine_router.observer.copies.copy_limits import settings_by_copy
from coalmine_router.observer.observed_request import Copy
from tests.doubles.reports import UNUSED, router_config, settings

CONFIG = router_config(
    stable=UNUSED,
    canary=UNUSED,
    int8=UNUSED,
    route={
        "shadows": {"int8": {"share": "10%", "concurrency": 3, "max_rps": 50}},
        "audit": {"share": "5%", "timeout": "1s"},
        "noise": {"share": "1%", "concurrency": 2},
    },
)


def test_each_role_has_the_settings_of_its_own() -> None:
    found = settings_by_copy(settings(CONFIG))
    assert found("digits", Copy("shadow", "int8")).max_rps == 50
    assert found("digits", Copy("audit", "canary")).timeout == 10**9
    assert found("digits", Copy("noise", "stable")).concurrency == 2


def test_what_only_a_command_switched_on_has_the_defaults() -> None:
    found = settings_by_copy(settings(CONFIG))
    for route, copy in (("digits", Copy("shadow", "canary")), ("new", Copy("audit", "canary"))):
        settings_of = found(route, copy)
        assert (settings_of.concurrency, settings_of.max_rps) == (32, None)
        assert settings_of.timeout == 5 * 10**9
