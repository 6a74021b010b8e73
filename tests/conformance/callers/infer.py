"""ModelInfer: what it carries there and back. `KIND ADDRESS`."""

from typing import Any

import ml_dtypes
import numpy as np
from tritonclient.grpc import InferRequestedOutput

from tests.conformance.callers.asking import (
    Client,
    Output,
    each,
    logits,
    pixels,
    run,
    tensor,
    tokens,
)

# Two values of each datatype, as far apart as it reaches.
VALUES: dict[str, Any] = {
    "BOOL": np.array([True, False]),
    **{each.upper(): np.array([np.iinfo(each).min, np.iinfo(each).max], each)
       for each in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")},
    "FP16": np.array([-65504, 6e-8], np.float16),
    "BF16": np.array([-3.3895314e38, 1.1754944e-38], ml_dtypes.bfloat16),
    "FP32": np.array([-3.4028235e38, 1e-45], np.float32),
    "FP64": np.array([-1.7976931348623157e308, 5e-324]),
}  # fmt: skip
WORDS = [b"", b"plain", "grüße 🐤".encode(), b"with\0null"]


async def scenario(client: Client) -> Output:
    return await each(
        datatypes=datatypes(client),
        not_numbers=not_numbers(client),
        words=words(client),
        named=named(client),
        several=several(client),
        optional=optional(client),
        versions=versions(client),
        parameters=parameters(client),
    )


async def datatypes(client: Client) -> Output:
    """Return, by datatype, whether the very bytes came back, and as which datatype."""
    inputs = [tensor(f"x_{name.lower()}", VALUES[name][None], name) for name in VALUES]
    answer = await client.ask("infer", "identity", inputs)
    response = answer.get_response()
    sent = dict(zip(VALUES, (each._get_content() for each in inputs), strict=True))
    names = (each.name for each in response.outputs)
    came = dict(zip(names, response.raw_output_contents, strict=True))
    return {
        name: {
            "same_bytes": came[f"y_{name.lower()}"] == sent[name],
            "datatype": answer.get_output(f"y_{name.lower()}").datatype,
            "same_values": bool((answer.as_numpy(f"y_{name.lower()}")[0] == VALUES[name]).all()),
        }
        for name in VALUES
    }


async def not_numbers(client: Client) -> list[str]:
    """Return what becomes of values that are no numbers: neither an error nor anything else."""
    values = np.full((1, 64), 0, np.float32)
    values[0, 0] = np.nan
    answer = await client.ask("infer", "digits", [tensor("pixels", values, "FP32")])
    return [str(each) for each in answer.as_numpy("logits")[0]]


async def words(client: Client) -> Output:
    """Return what comes back for words of bytes, and for words of text."""
    as_bytes = np.array(WORDS, np.object_)[:, None]
    as_text = np.array(["ab", "ü"], np.object_)[:, None]
    of_bytes = await client.ask("infer", "words", [tensor("words", as_bytes, "BYTES")])
    of_text = await client.ask("infer", "words", [tensor("words", as_text, "BYTES")])
    return {
        "of_bytes": [each.decode() for each in of_bytes.as_numpy("twice")[:, 0].tolist()],
        "of_text": [each.decode() for each in of_text.as_numpy("twice")[:, 0].tolist()],
        "shape": list(of_bytes.get_output("twice").shape),
        "datatype": of_bytes.get_output("twice").datatype,
    }


async def named(client: Client) -> Output:
    """Return what a response says besides its outputs."""
    answer = await client.ask("infer", "digits", pixels(3), request_id="the-id-7")
    response = answer.get_response(as_json=True)
    return {
        "id": response["id"],
        "model": [response["model_name"], response["model_version"]],
        "shape": response["outputs"][0]["shape"],
        "logits": logits(answer)[2],
        "no_id": (await client.ask("infer", "digits", pixels())).get_response().id,
    }


async def several(client: Client) -> Output:
    """Return what comes of a model with two outputs, of which some are asked for."""
    every = await client.ask("infer", "sequences", tokens(1, 2, 3))
    wanted = [InferRequestedOutput("length")]
    one = await client.ask("infer", "sequences", tokens(1, 2, 3), outputs=wanted)
    turned = [InferRequestedOutput("length"), InferRequestedOutput("doubled")]
    both = await client.ask("infer", "sequences", tokens(5), outputs=turned)
    return {
        "every": [each.name for each in every.get_response().outputs],
        "doubled": every.as_numpy("doubled").tolist(),
        "one": [each.name for each in one.get_response().outputs],
        "not_asked": one.as_numpy("doubled"),
        "length": one.as_numpy("length").tolist(),
        "both": [each.name for each in both.get_response().outputs],
    }


async def optional(client: Client) -> list[float]:
    """Return what comes of a request without an input that may be left out, and with it."""
    shift = tensor("shift", np.full((1, 1), 0.5, np.float32), "FP32")
    asked = (pixels(), [*pixels(), shift], [shift, *pixels()])
    answers = [await client.ask("infer", "shifted", given) for given in asked]
    return [answer.as_numpy("shifted")[0, 0].item() for answer in answers]


async def versions(client: Client) -> Output:
    """Return the version that answers, by what was asked for."""
    asked = ("", "1", "2", "stable", "canary")
    return await each(**{version: version_of(client, version) for version in asked})


async def version_of(client: Client, asked: str) -> list[Any]:
    answer = await client.ask("infer", "digits", pixels(), model_version=asked)
    return [answer.get_response().model_version, logits(answer)[0][1]]


async def parameters(client: Client) -> Output:
    """Return the answers to requests with parameters."""
    asked: dict[str, Output] = {
        "priority": {"priority": 1},
        "timeout": {"timeout": 20_000_000},
        "client_timeout": {"client_timeout": 20.0},
        "own": {"parameters": {"tenant": "a", "n": 1, "b": True, "f": 0.5}},
        "headers": {"headers": {"x-tenant": "a"}},
    }
    return {
        name: logits(await client.ask("infer", "digits", pixels(), model_version="1", **given))[0]
        for name, given in asked.items()
    }


if __name__ == "__main__":
    run(scenario)
