"""What tritonclient reads of a server as a whole, and of a router, sync and asyncio."""

from typing import Any

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import told_by

Told = dict[str, Any]

CALLER = "tests.conformance.callers.overview"


@pytest.fixture(scope="module", params=["sync", "aio"])
def told(server: Started, request: pytest.FixtureRequest) -> Told:
    answer: Told = told_by(CALLER, request.param, server.address("grpc"))
    return answer


@pytest.fixture(scope="module", params=["sync", "aio"])
def of_router(router: Started, request: pytest.FixtureRequest) -> Told:
    answer: Told = told_by(CALLER, request.param, router.address("data"))
    return answer


def test_the_server_names_the_extensions_that_it_offers(told: Told) -> None:
    assert told["server"]["name"] == told["server_name"] == "coalmine"
    assert told["server"]["version"]
    assert {"model_configuration", "model_repository", "statistics"} <= {
        each.partition("(")[0] for each in told["server"]["extensions"]
    }


def test_the_index_has_every_version_and_its_state(told: Told) -> None:
    rows = {(each["name"], each["version"]): each["state"] for each in told["index"]["models"]}
    assert rows["digits", "1"] == rows["digits", "2"] == rows["words", "1"] == "READY"
    assert told["index_states"] == {f"{name} {version}": "READY" for name, version in rows}


def test_a_router_names_itself_and_has_no_index_of_its_own(of_router: Told) -> None:
    assert of_router["server"]["name"] == of_router["server_name"] == "coalmine-router"
    for given in ("index", "index_states"):
        assert of_router[given]["status"] == "StatusCode.UNIMPLEMENTED"
        assert "ask the inference server itself" in of_router[given]["message"]
