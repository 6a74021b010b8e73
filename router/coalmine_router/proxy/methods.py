"""Which methods the data port offers, and who answers each."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, NoReturn

import grpc

from coalmine.errors import NotOffered
from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as oip
from coalmine.status import abort, let_go
from coalmine_router.proxy.service import FROM_ROUTER, Context, DataPlane

Answer = Callable[[bytes, Context], Awaitable[bytes]]

# Asked of one variant, never split: the pinned one, else stable.
_ASKED: Final = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")

_ELSEWHERE: Final[Mapping[str, str]] = {
    "RepositoryIndex": "ask the inference server itself; the router has no models",
    "RepositoryModelLoad": "ask the inference server itself; the router does not change models",
    "RepositoryModelUnload": "ask the inference server itself; the router does not change models",
}


def handlers(plane: DataPlane, ready: Callable[[], bool]) -> grpc.GenericRpcHandler:
    """Return the handlers of the Open Inference Protocol; requests and answers stay bytes."""
    unary = grpc.unary_unary_rpc_method_handler
    methods: dict[str, Any] = {"ModelInfer": unary(_guarded(plane.infer))}
    for name in _ASKED:
        methods[name] = unary(_guarded(functools.partial(plane.ask, f"{SERVICE}/{name}")))
    methods["ModelReady"] = unary(_guarded(_model_ready(plane)))
    methods["ServerLive"] = unary(_always(oip.ServerLiveResponse(live=True)))
    methods["ServerReady"] = unary(_server_ready(ready))
    methods["ServerMetadata"] = unary(_always(_metadata()))
    for name, why in _ELSEWHERE.items():
        methods[name] = unary(_refusal(f"{name} is not offered here: {why}"))
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        _refusal("ModelStreamInfer is not offered here: the router does not forward streams")
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _guarded(answer: Answer) -> Answer:
    """Return `answer`, but what it raises becomes a status: gRPC shows callers any other's text."""

    async def guarded(request: bytes, context: Context) -> bytes:
        try:
            return await answer(request, context)
        except grpc.aio.AbortError as aborted:
            del request
            let_go(aborted)
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status here
            await abort(context, error, (FROM_ROUTER,))

    return guarded


def _model_ready(plane: DataPlane) -> Answer:
    async def answer(request: bytes, context: Context) -> bytes:
        if not plane.knows(request):
            return oip.ModelReadyResponse(ready=False).SerializeToString()
        return await plane.ask(f"{SERVICE}/ModelReady", request, context)

    return answer


def _server_ready(ready: Callable[[], bool]) -> Any:
    async def answer(_request: bytes, _context: Context) -> bytes:
        return oip.ServerReadyResponse(ready=ready()).SerializeToString()

    return answer


def _always(message: oip.ServerLiveResponse | oip.ServerMetadataResponse) -> Any:
    data = message.SerializeToString()

    async def answer(_request: bytes, _context: Context) -> bytes:
        return data

    return answer


def _refusal(why: str) -> Any:
    async def answer(_request: Any, context: Context) -> NoReturn:
        await abort(context, NotOffered(why))

    return answer


def _metadata() -> oip.ServerMetadataResponse:
    return oip.ServerMetadataResponse(name="coalmine-router", version=version("coalmine"))
