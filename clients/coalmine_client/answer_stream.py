"""Requests and answers over one ModelStreamInfer, with a bound on what is in flight."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from coalmine.inference import inference_pb2 as pb
from coalmine_client.call_error import call_error, stream_error
from coalmine_client.inference_messages import Answer, read_answer

Requests = Iterable[pb.ModelInferRequest]


class AnswerStream:
    """One stream. gRPC's own thread reads its requests from the caller's iterable."""

    def __init__(self, requests: Requests, in_flight_max: int) -> None:
        self._requests = requests
        self._free = threading.Semaphore(in_flight_max)
        self._is_over = False
        self._failure: BaseException | None = None

    def answers(self, call: Callable[[Iterator[pb.ModelInferRequest]], Any]) -> Iterator[Answer]:
        """Yield the answers in order. Raises CallError, and what the caller's iterable raises."""
        responses = call(self._paced_requests())
        try:
            for response in responses:
                self._free.release()
                if response.error_message:
                    raise stream_error(response.error_message)
                yield read_answer(response.infer_response, ())
        except grpc.RpcError as error:
            if self._failure is not None:
                raise self._failure from None
            raise call_error(error) from None
        finally:
            self._cancel_stream(responses)
        if self._failure is not None:
            raise self._failure

    def _paced_requests(self) -> Iterator[pb.ModelInferRequest]:
        """Yield requests as there is room. gRPC hides errors of this thread, so they are kept."""
        try:
            for request in self._requests:
                self._free.acquire()
                if self._is_over:
                    return
                yield request
        except Exception as error:  # noqa: BLE001 - raised again where the answers are read
            self._failure = error

    def _cancel_stream(self, responses: Any) -> None:
        self._is_over = True
        self._free.release()
        responses.cancel()
