"""TLS, tokens and the admin listener of a server in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from coalmine.access.tls_files import TlsFiles
from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.process.lifecycle import Stop
from coalmine_client import AsyncClient, Client, Tls
from coalmine_server.app import Process
from coalmine_server.config import ServerConfig
from tests.doubles.callers import bearer, outcome, refusal, write_tokens
from tests.doubles.certificates import Authority, Pair, serial_of, shown_serial
from tests.doubles.server_rig import OPTIONS, ServerRig, infer_request, pixels, serving
from tests.models import Linear, Slow, config, write_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "models", "digits", {1: Linear()}, config())
    return tmp_path / "models"


def client(address: str, authority: Authority, pair: Pair | None = None) -> AsyncClient:
    cert, key = (None, None) if pair is None else (pair.cert, pair.key)
    return AsyncClient(address, tls=Tls(authority.ca, cert, key))


def open_channel(address: str, authority: Authority) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)


# ---------------------------------------------------------------- TLS


async def test_a_server_is_called_by_tls_and_by_nothing_else(
    models: Path, authority: Authority
) -> None:
    pair = authority.server()
    async with serving(models, tls=TlsFiles(pair.cert, pair.key)) as rig:
        async with client(rig.address, authority) as encrypted:
            answer = await encrypted.infer("digits", pixels())
            assert answer.outputs["logits"].shape == (1, 10)
        async with AsyncClient(rig.address) as plain:
            assert await outcome(plain.server_live()) == "UNAVAILABLE"


async def test_a_server_of_another_authority_is_not_trusted(
    models: Path, authority: Authority, tmp_path: Path
) -> None:
    pair = authority.server()
    stranger = Authority(tmp_path / "other", "another")
    async with (
        serving(models, tls=TlsFiles(pair.cert, pair.key)) as rig,
        client(rig.address, stranger) as distrusting,
    ):
        code, details = await refusal(distrusting.server_live())
    assert code == "UNAVAILABLE"
    assert "CERTIFICATE_VERIFY_FAILED" in details


async def test_a_new_certificate_is_shown_to_new_connections_while_open_ones_go_on(
    models: Path, authority: Authority
) -> None:
    pair = authority.server()
    async with (
        serving(models, tls=TlsFiles(pair.cert, pair.key)) as rig,
        open_channel(rig.address, authority) as channel,
    ):
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        stream: Any = stub.ModelStreamInfer()  # its connection can't be another one later
        await stream.write(infer_request("digits", pixels()))
        assert not (await stream.read()).error_message
        first = await shown_serial(rig.address)
        authority.server()
        assert await shown_serial(rig.address) == serial_of(pair.cert.read_bytes()) != first
        await stream.write(infer_request("digits", pixels()))
        assert not (await stream.read()).error_message
        assert await outcome(stub.ServerLive(pb.ServerLiveRequest())) == "OK"
        await stream.done_writing()


async def test_a_wrong_certificate_leaves_the_old_one_and_is_logged_once(
    models: Path, authority: Authority
) -> None:
    pair = authority.server()
    serial = serial_of(pair.cert.read_bytes())
    async with serving(models, tls=TlsFiles(pair.cert, pair.key)) as rig:
        with capture_logs() as logged:
            pair.cert.write_text("half a certifi")
            assert await shown_serial(rig.address) == serial
            assert await shown_serial(rig.address) == serial
    refused = [each for each in logged if each["event"] == "changed_file_refused"]
    assert [each["reason"] for each in refused] == [f"{pair.cert}: not a certificate, PEM"]


async def test_a_new_authority_of_callers_is_taken(
    models: Path, authority: Authority, tmp_path: Path
) -> None:
    pair, trusted = authority.server(), tmp_path / "clients.pem"
    trusted.write_bytes(authority.ca.read_bytes())
    newer = Authority(tmp_path / "newer", "a newer one")
    old, new = authority.client("old"), newer.client("new")
    async with serving(models, tls=TlsFiles(pair.cert, pair.key, trusted)) as rig:
        async with client(rig.address, authority, new) as calling:
            assert await outcome(calling.server_live()) == "UNAVAILABLE"
        trusted.write_bytes(newer.ca.read_bytes())
        async with client(rig.address, authority, new) as calling:
            assert await outcome(calling.server_live()) == "OK"
        async with client(rig.address, authority, old) as calling:
            assert await outcome(calling.server_live()) == "UNAVAILABLE"


async def test_with_an_authority_of_callers_each_must_show_a_certificate(
    models: Path, authority: Authority
) -> None:
    pair = authority.server()
    async with serving(models, tls=TlsFiles(pair.cert, pair.key, authority.ca)) as rig:
        async with client(rig.address, authority, authority.client("alice")) as known:
            assert await outcome(known.infer("digits", pixels())) == "OK"
        async with client(rig.address, authority) as nobody:
            assert await outcome(nobody.server_live()) == "UNAVAILABLE"


async def test_wrong_files_stop_the_start(models: Path, authority: Authority) -> None:
    one, other = authority.server("one"), authority.server("other")
    tls = TlsFiles(one.cert, other.key)
    told: list[Any] = []
    process = Process(
        ServerConfig(models, "127.0.0.1:0", "127.0.0.1:0", 1, tls=tls), lambda **_: told.append(1)
    )
    with pytest.raises(StartError, match=r"other-key\.pem: not the key of"):
        await process.serve(Stop())
    assert told == []


# ---------------------------------------------------------------- tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", "viewer", "caller", "operator")


@pytest.fixture
async def rig(models: Path, tokens: Path) -> AsyncIterator[ServerRig]:
    async with serving(models, tokens=tokens, allow_load=True) as running:
        yield running


@pytest.mark.parametrize(
    ("role", "codes"),
    [
        ("", ["OK", "UNAUTHENTICATED", "UNAUTHENTICATED", "UNAUTHENTICATED"]),
        ("unknown", ["OK", "UNAUTHENTICATED", "UNAUTHENTICATED", "UNAUTHENTICATED"]),
        ("viewer", ["OK", "OK", "PERMISSION_DENIED", "PERMISSION_DENIED"]),
        ("caller", ["OK", "OK", "OK", "PERMISSION_DENIED"]),
        ("operator", ["OK", "OK", "OK", "OK"]),
    ],
)
async def test_each_role_is_let_in_where_it_may(
    rig: ServerRig, role: str, codes: list[str]
) -> None:
    shows: dict[str, Any] = {"metadata": bearer(role) if role else ()}
    load = pb.RepositoryModelLoadRequest(model_name="digits")
    assert [
        await outcome(rig.stub.ServerLive(pb.ServerLiveRequest(), **shows)),
        await outcome(rig.stub.RepositoryIndex(pb.RepositoryIndexRequest(), **shows)),
        await outcome(rig.stub.ModelInfer(infer_request("digits", pixels()), **shows)),
        await outcome(rig.stub.RepositoryModelLoad(load, **shows)),
    ] == codes


async def test_a_stream_is_let_in_by_its_role(rig: ServerRig) -> None:
    async def streamed(role: str) -> str:
        call = rig.stub.ModelStreamInfer(
            iter([infer_request("digits", pixels())]), metadata=bearer(role)
        )
        try:
            async for each in call:
                return each.error_message or "answered"
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "nothing"

    assert await streamed("unknown") == "UNAUTHENTICATED"
    assert await streamed("viewer") == "PERMISSION_DENIED"
    assert await streamed("caller") == "answered"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_is_for_those_who_may_look(rig: ServerRig, version: str) -> None:
    asked = rig.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def listed(*, metadata: Any) -> None:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for each in asked(iter([request]), metadata=metadata):
            assert each.list_services_response.service

    assert await outcome(listed(metadata=())) == "UNAUTHENTICATED"
    assert await outcome(listed(metadata=bearer("viewer"))) == "OK"


async def test_health_is_open_to_probes(rig: ServerRig) -> None:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    found = await stub.Check(health_pb2.HealthCheckRequest())
    assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_refused_request_is_not_so_much_as_read(rig: ServerRig) -> None:
    infer: Any = rig.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert await refusal(infer(b"\xff not a message")) == (
        "UNAUTHENTICATED",
        "a token is needed: metadata 'authorization: Bearer TOKEN'",
    )
    assert await outcome(infer(b"\xff", metadata=bearer("caller"))) == "INVALID_ARGUMENT"


async def test_an_unknown_method_is_unimplemented_for_an_operator(rig: ServerRig) -> None:
    call: Any = rig.channel.unary_unary("/inference.GRPCInferenceService/Nothing")
    assert await outcome(call(b"", metadata=bearer("operator"))) == "UNIMPLEMENTED"


async def test_the_client_shows_its_token(rig: ServerRig) -> None:
    async with AsyncClient(rig.address, token="caller-secret") as known:
        assert await outcome(known.infer("digits", pixels())) == "OK"
    async with AsyncClient(rig.address) as unknown:
        assert await outcome(unknown.infer("digits", pixels())) == "UNAUTHENTICATED"


async def test_tokens_are_shown_over_tls_too(
    models: Path, tokens: Path, authority: Authority
) -> None:
    pair = authority.server()
    async with (
        serving(models, tls=TlsFiles(pair.cert, pair.key), tokens=tokens) as running,
        AsyncClient(running.address, tls=Tls(authority.ca), token="viewer-secret") as viewer,
    ):
        assert await outcome(viewer.server_metadata()) == "OK"
        assert await outcome(viewer.infer("digits", pixels())) == "PERMISSION_DENIED"


async def test_the_waiting_client_shows_token_and_certificate_too(
    models: Path, tokens: Path, authority: Authority
) -> None:
    pair, alice = authority.server(), authority.client("alice")

    def called(address: str) -> str:
        tls = Tls(authority.ca, alice.cert, alice.key)
        with Client(address, tls=tls, token="caller-secret") as calling:
            return calling.infer("digits", pixels()).model_version

    tls = TlsFiles(pair.cert, pair.key, authority.ca)
    async with serving(models, tls=tls, tokens=tokens) as running:
        assert await asyncio.to_thread(called, running.address) == "1"


async def test_a_server_behind_another_address_is_known_by_its_name(
    models: Path, authority: Authority
) -> None:
    pair = authority.server()
    async with serving(models, tls=TlsFiles(pair.cert, pair.key)) as running:
        for name, code in (("localhost", "OK"), ("elsewhere", "UNAVAILABLE")):
            tls = Tls(authority.ca, server_name=name)
            async with AsyncClient(running.address, tls=tls) as calling:
                assert await outcome(calling.server_live()) == code


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_token_is_not_shown_to_another_machine_unencrypted(kind: Any) -> None:
    with pytest.raises(StartError, match="unencrypted"):
        kind("10.0.0.7:1", token="abc")
    made = kind("10.0.0.7:1", token="abc", token_in_plaintext=True)
    if kind is Client:
        made.close()
    else:
        await made.close()


# ---------------------------------------------------------------- the admin listener


async def test_with_an_admin_listener_models_are_loaded_there_alone(models: Path) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="digits")
    async with serving(models, admin_listen="127.0.0.1:0", allow_load=True) as rig:
        code, details = await refusal(rig.stub.RepositoryModelLoad(load))
        assert code == "UNIMPLEMENTED"
        assert "it is at the admin listener" in details
        async with grpc.aio.insecure_channel(rig.admin, options=OPTIONS) as channel:
            admin = pb_grpc.GRPCInferenceServiceStub(channel)
            assert await outcome(admin.RepositoryModelLoad(load)) == "OK"


async def test_what_is_in_flight_at_the_admin_listener_is_answered_at_the_end(
    models: Path,
) -> None:
    write_model(models, "slow", {1: Slow()})
    async with (
        serving(models, admin_listen="127.0.0.1:0", allow_load=True) as rig,
        grpc.aio.insecure_channel(rig.admin, options=OPTIONS) as channel,
    ):
        admin = pb_grpc.GRPCInferenceServiceStub(channel)
        call = admin.ModelInfer(infer_request("slow", pixels(value=500_000.0)), timeout=30)
        async with asyncio.timeout(10):
            while "coalmine_server_in_flight 1.0" not in await rig.metrics():
                pass
        rig.stop.ask("the test's")
        assert await outcome(call) == "OK"


async def test_tls_and_tokens_hold_at_the_admin_listener(
    models: Path, tokens: Path, authority: Authority
) -> None:
    pair = authority.server()
    load = pb.RepositoryModelLoadRequest(model_name="digits")
    async with serving(
        models,
        admin_listen="127.0.0.1:0",
        allow_load=True,
        tls=TlsFiles(pair.cert, pair.key),
        tokens=tokens,
    ) as rig:
        async with open_channel(rig.admin, authority) as channel:
            admin = pb_grpc.GRPCInferenceServiceStub(channel)
            assert await outcome(admin.RepositoryModelLoad(load)) == "UNAUTHENTICATED"
            caller, operator = bearer("caller"), bearer("operator")
            refused = admin.RepositoryModelLoad(load, metadata=caller)
            assert await outcome(refused) == "PERMISSION_DENIED"
            assert await outcome(admin.RepositoryModelLoad(load, metadata=operator)) == "OK"
        async with AsyncClient(rig.admin) as plain:
            assert await outcome(plain.server_live()) == "UNAVAILABLE"
