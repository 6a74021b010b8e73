"""Pings, large messages and compression. `KIND ADDRESS`."""

from typing import Any

import numpy as np
from tritonclient.grpc import KeepAliveOptions

from tests.conformance.callers.asking import Client, Output, each, logits, pixels, run, tensor

MIB = 1024 * 1024
PINGS = KeepAliveOptions(
    keepalive_time_ms=10_000,
    keepalive_timeout_ms=5_000,
    keepalive_permit_without_calls=True,
    http2_max_pings_without_data=0,
)


async def scenario(client: Client) -> Output:
    return await each(
        pinged=answer(client),
        large=doubled(client, 40 * MIB),
        too_large=client.failure("infer", "sequences", [zeros(65 * MIB)]),
        gzip=answer(client, compression_algorithm="gzip"),
        deflate=answer(client, compression_algorithm="deflate"),
        gzip_large=doubled(client, 8 * MIB, compression_algorithm="gzip"),
        still=answer(client),
    )


async def answer(client: Client, **named: Any) -> list[float]:
    found: list[float] = logits(
        await client.ask("infer", "digits", pixels(), model_version="1", **named)
    )[0]
    return found


def zeros(size: int) -> Any:
    return tensor("tokens", np.zeros((1, size // 8), np.int64), "INT64")


async def doubled(client: Client, size: int, **named: Any) -> Output:
    """Return how much came back of a request of `size` bytes, and whether it is right."""
    values = np.arange(size // 8, dtype=np.int64)[None]
    given = [tensor("tokens", values, "INT64")]
    came = (await client.ask("infer", "sequences", given, **named)).as_numpy("doubled")
    return {"bytes": came.nbytes, "right": bool((came == values * 2).all())}


if __name__ == "__main__":
    run(scenario, keepalive_options=PINGS)
