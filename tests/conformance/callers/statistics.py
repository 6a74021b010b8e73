"""Statistics before and after a known number of calls. `ADDRESS`."""

import sys
import time
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.conformance.callers.asking import Output, error_of, pixels, say

ROWS = (1, 3, 8, 1)


def scenario(client: triton.InferenceServerClient) -> Output:
    began_ms = time.time_ns() // 1_000_000
    before = counted(client)
    for rows in ROWS:
        client.infer("counted", pixels(rows))
    refused(client)
    given: list[Any] = []
    client.start_stream(lambda result, error: given.append(error))
    client.async_stream_infer("counted", pixels(2))
    client.async_stream_infer("counted", pixels(9))
    client.stop_stream()
    return {
        "before": before,
        "after": counted(client),
        "streamed": [error is None for error in given],
        "began_ms": began_ms,
        "names": names(client.get_inference_statistics()),
        "of_a_model": names(client.get_inference_statistics("digits")),
        "of_a_version": names(client.get_inference_statistics("digits", "1")),
        "unknown": failure(client),
    }


def counted(client: triton.InferenceServerClient) -> Output:
    """Return the one version's statistics, its counts as numbers: JSON has them as text."""
    (stats,) = client.get_inference_statistics("counted").model_stats
    return {
        "last_inference": stats.last_inference,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "stats": {
            field.name: [value.count, value.ns]
            for field, value in stats.inference_stats.ListFields()
        },
        "batches": {
            str(each.batch_size): [
                [part.count, part.ns]
                for part in (each.compute_input, each.compute_infer, each.compute_output)
            ]
            for each in stats.batch_stats
        },
    }


def refused(client: triton.InferenceServerClient) -> None:
    try:
        client.infer("counted", pixels(9))
    except InferenceServerException:
        return
    raise AssertionError("nine rows were taken for at most eight")


def names(answer: Any) -> list[list[str]]:
    return [[each.name, each.version] for each in answer.model_stats]


def failure(client: triton.InferenceServerClient) -> Output:
    try:
        return {"answer": str(client.get_inference_statistics("nobody", as_json=True))}
    except InferenceServerException as error:
        return error_of(error)


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        say(scenario(connected))
