"""What a refused call leaves behind in the proxy."""

import gc
import random
from collections import Counter
from typing import Any

import grpc

from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.trace_context import sampler_from
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.offered_methods import OfferedMethods
from coalmine_router.proxy.service import DataPlane


def exchanges() -> int:
    return sum(type(each) is Exchange for each in gc.get_objects())


async def test_a_refused_call_keeps_nothing_of_its_request() -> None:
    reports: list[bytes] = []

    def take(report: bytes, _bodies: bytes) -> None:
        reports.append(report)

    plane = DataPlane(report=take, sampler=sampler_from({}), rng=random.Random(1))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((OfferedMethods(plane, lambda: True),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    codes: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    before = exchanges()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(20):
                call: Any = channel.unary_unary(f"/{MODEL_INFER}")
                try:
                    await call(pb.ModelInferRequest(model_name="x").SerializeToString())
                except grpc.aio.AioRpcError as error:
                    codes[error.code().name] += 1
        await server.stop(None)
        assert codes == {"UNAVAILABLE": 20}
        assert len(reports) == 20
        assert exchanges() == before
    finally:
        gc.enable()
