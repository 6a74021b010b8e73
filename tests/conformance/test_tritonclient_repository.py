"""Load, unload and index as tritonclient calls them, sync and asyncio."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of, server_of

SERVED = {"index": [["READY", ""]], "ready": True, "others_ready": True, "infer": None}
CALLER = "tests.conformance.callers.repository"


@pytest.fixture(scope="module")
def open_server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with server_of(repository, tmp_path_factory.mktemp("open"), "--allow-load") as running:
        yield running


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(open_server: Started, request: pytest.FixtureRequest) -> Output:
    return output_of(CALLER, request.param, open_server.address("grpc"))


@pytest.fixture(scope="module", params=["sync", "aio"])
def refused(server: Started, request: pytest.FixtureRequest) -> Output:
    return output_of(CALLER, request.param, server.address("grpc"))


@pytest.mark.parametrize("when", ["unloaded", "unloaded_again"])
def test_an_unloaded_model_is_in_the_index_and_answers_no_more(output: Output, when: str) -> None:
    assert output["before"] == SERVED
    assert output[when] == {
        "index": [["UNAVAILABLE", "unloaded"]],
        "ready": False,
        "others_ready": True,
        "infer": "StatusCode.UNAVAILABLE",
    }


@pytest.mark.parametrize("when", ["loaded", "loaded_again", "after"])
def test_a_loaded_model_answers_once_the_call_is_back(output: Output, when: str) -> None:
    assert output[when] == SERVED


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("unknown_loaded", "NOT_FOUND"),
        ("unknown_unloaded", "NOT_FOUND"),
        ("outside", "INVALID_ARGUMENT"),
        ("with_config", "UNIMPLEMENTED"),
        ("with_files", "UNIMPLEMENTED"),
    ],
)
def test_what_can_not_be_loaded_or_unloaded_is_told_why(
    output: Output, given: str, code: str
) -> None:
    assert output[given]["status"] == f"StatusCode.{code}", output[given]


def test_a_server_that_does_not_allow_it_changes_nothing(refused: Output) -> None:
    for change in ("unloaded", "loaded", "unknown_loaded", "with_config"):
        assert refused[change]["status"] == "StatusCode.UNIMPLEMENTED", change
    assert "--allow-load" in refused["unloaded"]["message"]
    assert refused["before"] == refused["after"] == SERVED
