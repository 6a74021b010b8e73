"""Certificates and tokens. `KIND ADDRESS FILES`, a JSON object of PEM files by what they are."""

import asyncio
import json
import sys
from typing import Any

from tritonclient.grpc import InferenceServerClientPlugin

from tests.conformance.callers.asking import KINDS, Client, Output, each, logits, pixels, say

TIMEOUT_S = 10.0


class Bearer(InferenceServerClientPlugin):  # type: ignore[misc]  # tritonclient has no types
    """Shows a token with every call, as tritonclient has it done."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> None:
        request.headers["authorization"] = f"Bearer {self._token}"


class Callers:
    """Clients of one kind and address, each with its own certificates."""

    def __init__(self, kind: str, address: str, files: dict[str, str]) -> None:
        self._module, self._address, self._files = KINDS[kind], address, files

    async def answer(self, token: str = "", **tls: str) -> Any:
        """Return what ModelInfer tells a caller with these files and this token."""
        client = self._module.InferenceServerClient(self._address, **self._options(tls))
        if token:
            client.register_plugin(Bearer(token))
        try:
            return await infer(Client(client))
        finally:
            await Client(client).ask("close")

    async def may(self, token: str) -> Output:
        """Return the status of each kind of call with this token."""
        options = self._options({"root_certificates": "ca"})
        opened = Client(self._module.InferenceServerClient(self._address, **options))
        headers = {"authorization": f"Bearer {token}"}
        calls: dict[str, tuple[Any, ...]] = {
            "is_server_live": (),
            "get_model_metadata": ("digits",),
            "get_inference_statistics": ("digits",),
            "infer": ("digits", pixels()),
            "load_model": ("digits",),
        }
        try:
            return {
                method: (await opened.failure(method, *given, headers=headers))["status"]
                for method, given in calls.items()
            }
        finally:
            await opened.ask("close")

    def _options(self, tls: dict[str, str]) -> Output:
        return {"ssl": bool(tls), **{name: self._files[file] for name, file in tls.items()}}


async def infer(client: Client) -> Any:
    called = {"model_version": "1", "client_timeout": TIMEOUT_S}
    failure = await client.failure("infer", "digits", pixels(), **called)
    if failure["status"]:
        return failure
    return logits(await client.ask("infer", "digits", pixels(), **called))[0][1]


async def scenario(callers: Callers) -> Output:
    trusting = {"root_certificates": "ca"}
    known = {"private_key": "key", "certificate_chain": "cert"}
    stranger = {"private_key": "other_key", "certificate_chain": "other_cert"}
    return await each(
        no_tls=callers.answer("caller-token"),
        other_authority=callers.answer("caller-token", root_certificates="other_ca"),
        no_token=callers.answer(**trusting),
        wrong_token=callers.answer("nobody's", **trusting),
        no_certificate=callers.answer("caller-token", **trusting),
        certificate=callers.answer("caller-token", **trusting, **known),
        strangers_certificate=callers.answer("caller-token", **trusting, **stranger),
        viewer=callers.may("viewer-token"),
        caller=callers.may("caller-token"),
        operator=callers.may("operator-token"),
    )


if __name__ == "__main__":
    say(asyncio.run(scenario(Callers(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
