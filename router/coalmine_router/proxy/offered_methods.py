"""The methods that the data port offers, and the handler of each."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from coalmine.errors import NotOffered
from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as oip
from coalmine.status import abort, drop_traceback
from coalmine_router.proxy.endings import FROM_ROUTER, Context
from coalmine_router.proxy.service import DataPlane
from coalmine_router.proxy.streams import StreamService

Answer = Callable[[bytes, Context], Awaitable[bytes]]
# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

# One variant answers these, without a split: the pinned one, else stable.
_ASKED: Final = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")

_ELSEWHERE: Final[Mapping[str, str]] = {
    "RepositoryIndex": "ask the inference server itself; the router has no models",
    "RepositoryModelLoad": "ask the inference server itself; the router does not change models",
    "RepositoryModelUnload": "ask the inference server itself; the router does not change models",
}


class OfferedMethods(grpc.GenericRpcHandler):
    """Offers the Open Inference Protocol, and the methods that routes name. Messages stay bytes."""

    def __init__(self, plane: DataPlane, ready: Callable[[], bool]) -> None:
        self._plane = plane
        self._methods = {f"/{SERVICE}/{name}": each for name, each in _named_handlers(plane, ready)}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MaybeHandler:
        """Return the handler of the call. With None, gRPC answers UNIMPLEMENTED."""
        method = handler_call_details.method
        found = self._methods.get(method)
        return found if found is not None else self._route_handler(method.removeprefix("/"))

    def _route_handler(self, method: str) -> MaybeHandler:
        routed = self._plane.routing.route_of_method(method)
        if routed is None:
            return None
        answer = functools.partial(self._plane.call, routed, method)
        return grpc.unary_unary_rpc_method_handler(_with_errors_as_status(answer))


def _named_handlers(plane: DataPlane, ready: Callable[[], bool]) -> list[tuple[str, Handler]]:
    unary = grpc.unary_unary_rpc_method_handler
    asked: list[tuple[str, Handler]] = [
        (name, unary(_with_errors_as_status(functools.partial(plane.ask, f"{SERVICE}/{name}"))))
        for name in _ASKED
    ]
    return [
        *asked,
        ("ModelInfer", unary(_with_errors_as_status(plane.infer))),
        ("ModelReady", unary(_with_errors_as_status(_model_ready_answer(plane)))),
        ("ModelStreamInfer", _stream_handler(StreamService(plane))),
        ("ServerLive", unary(_fixed_answer(oip.ServerLiveResponse(live=True)))),
        ("ServerReady", unary(_server_ready_answer(ready))),
        ("ServerMetadata", unary(_fixed_answer(_server_metadata()))),
        *((name, unary(_refusing_answer(name, why))) for name, why in _ELSEWHERE.items()),
    ]


def _with_errors_as_status(answer: Answer) -> Answer:
    """Return `answer` with its errors as statuses: gRPC shows callers any other's text."""

    async def answer_with_status(request: bytes, context: Context) -> bytes:
        try:
            return await answer(request, context)
        except grpc.aio.AbortError as aborted:
            del request
            drop_traceback(aborted)
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status here
            await abort(context, error, (FROM_ROUTER,))

    return answer_with_status


def _stream_handler(streams: StreamService) -> Handler:
    async def serve_with_status(requests: object, context: Context) -> None:
        try:
            await streams.serve(requests, context)
        except grpc.aio.AbortError as aborted:
            drop_traceback(aborted)
            raise
        except Exception as error:  # noqa: BLE001 - as above
            await abort(context, error, (FROM_ROUTER,))

    return grpc.stream_stream_rpc_method_handler(serve_with_status)


def _model_ready_answer(plane: DataPlane) -> Answer:
    async def answer_model_ready(request: bytes, context: Context) -> bytes:
        if not plane.knows_model(request):
            return oip.ModelReadyResponse(ready=False).SerializeToString()
        return await plane.ask(f"{SERVICE}/ModelReady", request, context)

    return answer_model_ready


def _server_ready_answer(ready: Callable[[], bool]) -> Any:
    async def answer_server_ready(_request: bytes, _context: Context) -> bytes:
        return oip.ServerReadyResponse(ready=ready()).SerializeToString()

    return answer_server_ready


def _fixed_answer(message: oip.ServerLiveResponse | oip.ServerMetadataResponse) -> Any:
    data = message.SerializeToString()

    async def answer_always_the_same(_request: bytes, _context: Context) -> bytes:
        return data

    return answer_always_the_same


def _refusing_answer(name: str, why: str) -> Any:
    async def refuse_call(_request: bytes, context: Context) -> NoReturn:
        await abort(context, NotOffered(f"{name} is not offered here: {why}"), (FROM_ROUTER,))

    return refuse_call


def _server_metadata() -> oip.ServerMetadataResponse:
    return oip.ServerMetadataResponse(name="coalmine-router", version=version("coalmine"))
