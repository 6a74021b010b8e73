"""An open stream while its server is asked to end. `ADDRESS PID`."""

import os
import signal
import sys
from queue import Queue
from typing import Any

import tritonclient.grpc as triton

from tests.conformance.callers.asking import Output, error_of, pixels, say


def scenario(client: triton.InferenceServerClient, pid: int) -> Output:
    given: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(lambda result, error: given.put((result, error)))
    client.async_stream_infer("digits", pixels(), request_id="before")
    before = given.get(timeout=30)[0].get_response().id
    client.async_stream_infer("slow", pixels(value=4e5), request_id="in flight")
    # Answered over a call of its own, behind which the stream's request has long been read.
    client.infer("digits", pixels())
    os.kill(pid, signal.SIGTERM)
    answered = given.get(timeout=30)[0].get_response().id
    end = error_of(given.get(timeout=30)[1])
    client.stop_stream()
    return {"before": before, "in_flight": answered, "end": end}


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        say(scenario(connected, int(sys.argv[2])))
