"""Statistics as tritonclient reads them: what was counted adds up."""

from typing import Any

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of

# What `callers/statistics.py` sends: four calls and a streamed one are answered, two refused.
ROWS = (1, 3, 8, 1, 2)
REFUSED = 2


@pytest.fixture(scope="module")
def output(server: Started) -> Output:
    return output_of("tests.conformance.callers.statistics", server.address("grpc"))


def grown(output: Output, name: str) -> Any:
    return output["after"][name] - output["before"][name]


def durations(output: Output, name: str) -> tuple[int, int]:
    """Return by how much a duration's count and nanoseconds grew."""
    before = output["before"]["stats"].get(name, [0, 0])
    count, ns = output["after"]["stats"][name]
    return count - before[0], ns - before[1]


def test_rows_requests_and_batches_are_counted(output: Output) -> None:
    assert output["streamed"] == [True, False]
    assert grown(output, "inference_count") == sum(ROWS)
    assert grown(output, "execution_count") == len(ROWS), "one at a time, so each was its own batch"
    assert durations(output, "success")[0] == len(ROWS)
    assert durations(output, "fail")[0] == REFUSED


@pytest.mark.parametrize("part", ["queue", "compute_input", "compute_infer", "compute_output"])
def test_every_success_has_its_time_in_every_part(output: Output, part: str) -> None:
    count, ns = durations(output, part)
    assert count == len(ROWS)
    assert ns > 0


def test_the_parts_take_no_longer_than_the_whole(output: Output) -> None:
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(durations(output, part)[1] for part in parts) <= durations(output, "success")[1]


def test_batches_add_up_to_the_rows_and_to_the_executions(output: Output) -> None:
    after = output["after"]
    assert sum(parts[1][0] for parts in after["batches"].values()) == after["execution_count"]
    rows = sum(int(size) * parts[1][0] for size, parts in after["batches"].items())
    assert rows == after["inference_count"]
    assert set(after["batches"]) == {"1", "2", "3", "8"}


def test_the_time_of_the_last_inference_is_told(output: Output) -> None:
    assert (
        output["began_ms"] - 1_000
        <= output["after"]["last_inference"]
        <= output["began_ms"] + 60_000
    )


def test_statistics_are_of_all_models_of_one_or_of_a_version(output: Output) -> None:
    assert {"digits", "counted", "words", "slow"} <= {name for name, _ in output["names"]}
    assert output["of_a_model"] == [["digits", "1"], ["digits", "2"]]
    assert output["of_a_version"] == [["digits", "1"]]
    assert output["unknown"]["status"] == "StatusCode.NOT_FOUND"


def test_statistics_are_the_same_as_json_over_asyncio(server: Started) -> None:
    output = output_of("tests.conformance.callers.statistics_aio", "aio", server.address("grpc"))
    (version,) = output["version"]["model_stats"]
    assert (version["name"], version["version"]) == ("digits", "1")
    assert int(version["inference_stats"]["success"]["count"]) >= 1
    assert output["unknown"]["status"] == "StatusCode.NOT_FOUND"
