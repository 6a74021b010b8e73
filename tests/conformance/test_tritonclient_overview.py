"""What tritonclient reads of a server as a whole, and of a router, sync and asyncio."""

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of

CALLER = "tests.conformance.callers.overview"


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(server: Started, request: pytest.FixtureRequest) -> Output:
    return output_of(CALLER, request.param, server.address("grpc"))


@pytest.fixture(scope="module", params=["sync", "aio"])
def of_router(router: Started, request: pytest.FixtureRequest) -> Output:
    return output_of(CALLER, request.param, router.address("data"))


def test_the_server_names_the_extensions_that_it_offers(output: Output) -> None:
    assert output["server"]["name"] == output["server_name"] == "coalmine"
    assert output["server"]["version"]
    assert {"model_configuration", "model_repository", "statistics"} <= {
        each.partition("(")[0] for each in output["server"]["extensions"]
    }


def test_the_index_has_every_version_and_its_state(output: Output) -> None:
    rows = {(each["name"], each["version"]): each["state"] for each in output["index"]["models"]}
    assert rows["digits", "1"] == rows["digits", "2"] == rows["words", "1"] == "READY"
    assert output["index_states"] == {f"{name} {version}": "READY" for name, version in rows}


def test_a_router_names_itself_and_has_no_index_of_its_own(of_router: Output) -> None:
    assert of_router["server"]["name"] == of_router["server_name"] == "coalmine-router"
    for given in ("index", "index_states"):
        assert of_router[given]["status"] == "StatusCode.UNIMPLEMENTED"
        assert "ask the inference server itself" in of_router[given]["message"]
