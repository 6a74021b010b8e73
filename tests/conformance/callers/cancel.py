"""async_infer of tritonclient's sync client: callbacks, cancelling, time-outs. `ADDRESS`."""

import sys
from functools import partial
from queue import Queue
from typing import Any

import tritonclient.grpc as triton

from tests.conformance.callers.asking import Output, error_of, logits, pixels, say

LONG = 4e5  # rounds of `slow`, some tenths of a second


class Calls:
    """Calls in flight by name, and what their callbacks were given."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._given: Queue[tuple[str, Any, Any]] = Queue()

    def begin(self, name: str, model: str, value: float, **named: Any) -> Any:
        callback = partial(self._called, name)
        inputs = pixels(value=value)
        return self._client.async_infer(model, inputs, callback, request_id=name, **named)

    def _called(self, name: str, result: Any, error: Any) -> None:
        self._given.put((name, result, error))

    def ended(self, count: int) -> Output:
        """Wait for `count` callbacks; return what they were given."""
        came = [self._given.get(timeout=30) for _ in range(count)]
        return {
            name: error_of(error) if error else [result.get_response().id, logits(result)[0][0]]
            for name, result, error in came
        }


def arrived(client: triton.InferenceServerClient) -> None:
    """Return when all that was sent has come to the server: what is sent later is answered."""
    client.infer("digits", pixels())


def scenario(client: triton.InferenceServerClient) -> Output:
    calls = Calls(client)
    arrived(client)
    calls.begin("begun", "slow", LONG)
    arrived(client)
    waiting = calls.begin("waiting", "slow", 3.0)
    calls.begin("neighbour", "slow", 2.0)
    calls.begin("out_of_time", "slow", 2.0, timeout=1_000)
    arrived(client)
    waiting.cancel()
    output = calls.ended(4)
    running = calls.begin("running", "slow", LONG)
    arrived(client)
    calls.begin("behind", "slow", 5.0)
    running.cancel()
    output.update(calls.ended(2))
    for each in range(20):
        calls.begin(f"many-{each}", "raises", float(each))
    return {**output, "many": calls.ended(20)}


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        say(scenario(connected))
