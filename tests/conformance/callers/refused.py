"""Requests that can't be answered, and what they are told. `KIND ADDRESS`."""

from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput

from tests.conformance.callers.asking import Client, Output, pixels, run, tensor, tokens

SMALL = np.zeros((1, 64), np.float32)


async def scenario(client: Client) -> Output:
    return {
        **{name: await client.failure("infer", *given) for name, given in wrong().items()},
        "unknown_version": await client.failure("infer", "digits", pixels(), model_version="9"),
        "unknown_label": await client.failure("infer", "digits", pixels(), model_version="best"),
        "unknown_output": await with_outputs(client, InferRequestedOutput("nothing")),
        "classification": await with_outputs(client, InferRequestedOutput("logits", class_count=2)),
        "sequence": await client.failure("infer", "digits", pixels(), sequence_id=5),
        "late": await client.failure("infer", "slow", pixels(value=4e5), client_timeout=0.05),
        **await not_offered(client),
        "still": (await client.ask("infer", "digits", pixels())).as_numpy("logits").shape,
    }


def wrong() -> dict[str, tuple[str, list[Any]]]:
    shared = InferInput("pixels", [1, 64], "FP32")
    shared.set_shared_memory("region", 256)
    empty = InferInput("pixels", [1, 64], "FP32")
    return {
        "unknown_model": ("nobody", pixels()),
        "unknown_input": ("digits", [tensor("pixel", SMALL, "FP32")]),
        "no_input": ("digits", []),
        "input_twice": ("digits", [*pixels(), *pixels()]),
        "datatype": ("digits", [tensor("pixels", SMALL.astype(np.float64), "FP64")]),
        "size": ("digits", [tensor("pixels", SMALL[:, :63], "FP32")]),
        "rank": ("digits", [tensor("pixels", SMALL[0], "FP32")]),
        "rows": ("digits", pixels(33)),
        "no_rows": ("digits", pixels(0)),
        "no_bytes": ("digits", [empty]),
        "too_long": ("sequences", [*tokens(1), *tokens(2)]),
        "raised": ("raises", pixels(value=-1)),
        "shared_memory": ("digits", [shared]),
    }


async def with_outputs(client: Client, *outputs: Any) -> Output:
    return await client.failure("infer", "digits", pixels(), outputs=list(outputs))


async def not_offered(client: Client) -> Output:
    return {
        "register_memory": await client.failure("register_system_shared_memory", "a", "/a", 8),
        "cuda_memory": await client.failure("get_cuda_shared_memory_status"),
        "trace": await client.failure("get_trace_settings"),
        "log": await client.failure("update_log_settings", {"log_verbose_level": 1}),
    }


if __name__ == "__main__":
    run(scenario)
