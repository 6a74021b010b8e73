"""TLS, tokens, the audit and the socket of a control plane in this process."""

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from coalmine.access.target import Target, with_metadata
from coalmine.access.tls_files import Tls
from coalmine.access.tokens import Role
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import ReportsStub, RouteControlStub, TableFeedStub
from coalmine.errors import StartError
from coalmine_router.config.file import ControlConfig, RouterConfig, TlsConfig
from coalmine_router.control.listener import ROLES, guard_advice
from tests.doubles.callers import TOKENS, bearer, outcome, refusal, write_tokens
from tests.doubles.certificates import Authority
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.oip_backend import OipBackend

EVERYBODY = ("viewer", "caller", "proxy", "operator")


@pytest.fixture
async def backend() -> AsyncIterator[OipBackend]:
    async with OipBackend() as backend:
        yield backend


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", *EVERYBODY)


@pytest.fixture
def config(tmp_path: Path, backend: OipBackend) -> Callable[..., RouterConfig]:
    """Return a configuration whose control has these keys too."""

    def made(**more: Any) -> RouterConfig:
        plain = router_config(tmp_path / "state", backend.address)
        return plain.model_copy(update={"control": plain.control.model_copy(update=more)})

    return made


def served_by(authority: Authority, *, asks: bool = False) -> TlsConfig:
    pair = authority.server()
    return TlsConfig(cert=pair.cert, key=pair.key, client_ca=authority.ca if asks else None)


def weights(actor: str = "") -> pb.SetWeightsRequest:
    return pb.SetWeightsRequest(route="digits", weights_bp={"canary": 100}, actor=actor)


async def first_of(stream: Any) -> None:
    """Return once something came on the stream, or it ended."""
    async for _ in stream:
        stream.cancel()
        return


def calls(channel: grpc.aio.Channel) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return each method of the control process as a call."""
    control, one = RouteControlStub(channel), pb.GetMismatchRequest(route="digits", id="m1")
    reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    who = pb.ProxyState(proxy_id="p")
    return {
        "ListRoutes": lambda: control.ListRoutes(pb.ListRoutesRequest()),
        "GetRoute": lambda: control.GetRoute(pb.GetRouteRequest(route="digits")),
        "WatchRoute": lambda: first_of(control.WatchRoute(pb.WatchRouteRequest(route="digits"))),
        "GetHistory": lambda: control.GetHistory(pb.GetHistoryRequest(route="digits")),
        "ListTrials": lambda: control.ListTrials(pb.ListTrialsRequest(route="digits")),
        "ListMismatches": lambda: control.ListMismatches(pb.ListMismatchesRequest(route="digits")),
        "reflection": lambda: first_of(reflected(iter([listing]))),
        "GetMismatch": lambda: control.GetMismatch(one),
        "SetWeights": lambda: control.SetWeights(weights()),
        "SetShadow": lambda: control.SetShadow(
            pb.SetShadowRequest(route="digits", variant="int8", share_bp=1)
        ),
        "Follow": lambda: first_of(TableFeedStub(channel).Follow(iter([who]))),
        "Send": lambda: first_of(ReportsStub(channel).Send(iter([pb.ReportBatch()]))),
    }


VIEWED = {
    *("ListRoutes", "GetRoute", "WatchRoute", "GetHistory", "ListTrials", "ListMismatches"),
    "reflection",
}
FOLLOWED = {"Follow", "Send"}
CHANGED = {"GetMismatch", "SetWeights", "SetShadow"}


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("", set()),
        ("unknown", set()),
        ("viewer", VIEWED),
        ("caller", VIEWED),
        ("proxy", VIEWED | FOLLOWED),
        ("operator", VIEWED | FOLLOWED | CHANGED),
    ],
)
async def test_each_role_is_let_in_where_it_may(
    config: Callable[..., RouterConfig], tokens: Path, role: str, allowed: set[str]
) -> None:
    async with ControlRig(config(tokens=tokens), token=TOKENS.get(role, role) or None) as rig:
        found = {method: await outcome(call()) for method, call in calls(rig.channel).items()}
    refused = "PERMISSION_DENIED" if role in EVERYBODY else "UNAUTHENTICATED"
    assert {method for method, code in found.items() if code != refused} == allowed
    assert {found[method] for method in allowed} <= {"OK", "CANCELLED", "ABORTED"}


def test_every_method_of_the_control_process_has_a_role() -> None:
    offered = {
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert offered <= set(ROLES)
    assert None not in {ROLES[method] for method in offered}
    assert ROLES["/coalmine.control.v1.RouteControl/GetMismatch"] is Role.OPERATOR


async def test_health_is_open_to_probes(config: Callable[..., RouterConfig], tokens: Path) -> None:
    async with ControlRig(config(tokens=tokens)) as rig:
        health = health_pb2_grpc.HealthStub(rig.channel)
        assert await outcome(health.Check(health_pb2.HealthCheckRequest())) == "OK"


async def test_a_token_that_is_taken_out_of_the_file_is_refused_from_then_on(
    config: Callable[..., RouterConfig], tokens: Path
) -> None:
    async with ControlRig(config(tokens=tokens), token=TOKENS["viewer"]) as rig:
        assert await outcome(rig.stub.ListRoutes(pb.ListRoutesRequest())) == "OK"
        write_tokens(tokens, "operator")
        while (found := await outcome(rig.stub.ListRoutes(pb.ListRoutesRequest()))) == "OK":
            pass
    assert found == "UNAUTHENTICATED"


# ---------------------------------------------------------------- who did it


async def actor_of(rig: ControlRig, said: str) -> str:
    await rig.stub.SetWeights(weights(said))
    history = await rig.stub.GetHistory(pb.GetHistoryRequest(route="digits", limit=1))
    return history.changes[0].actor


async def test_the_history_has_the_tokens_name_first_whatever_the_caller_says(
    config: Callable[..., RouterConfig], tokens: Path
) -> None:
    async with ControlRig(config(tokens=tokens), token=TOKENS["operator"]) as rig:
        assert await actor_of(rig, "root@moon") == "operator-1 (root@moon)"


async def test_who_says_nothing_is_known_by_its_token(
    config: Callable[..., RouterConfig], tokens: Path
) -> None:
    async with ControlRig(config(tokens=tokens), token=TOKENS["operator"]) as rig:
        assert await actor_of(rig, "") == "operator-1"


async def test_without_tokens_the_history_has_the_certificates_subject(
    config: Callable[..., RouterConfig], authority: Authority
) -> None:
    alice = authority.client("alice")
    tls = Tls(authority.ca, alice.cert, alice.key)
    async with ControlRig(config(tls=served_by(authority, asks=True)), tls=tls) as rig:
        assert await actor_of(rig, "ada@tower") == "CN=alice (ada@tower)"


async def test_without_either_the_caller_is_whom_it_says(
    config: Callable[..., RouterConfig],
) -> None:
    async with ControlRig(config()) as rig:
        assert await actor_of(rig, "ada@tower") == "ada@tower"


async def test_changes_and_refusals_leave_a_line_and_looking_does_not(
    config: Callable[..., RouterConfig], tokens: Path
) -> None:
    async with ControlRig(config(tokens=tokens)) as rig:
        with capture_logs() as logged:
            await rig.stub.SetWeights(weights(), metadata=bearer("operator"))
            await outcome(rig.stub.SetWeights(weights(), metadata=bearer("viewer")))
            await outcome(rig.stub.SetWeights(weights()))
            await rig.stub.ListRoutes(pb.ListRoutesRequest(), metadata=bearer("viewer"))
            asked = pb.GetMismatchRequest(route="digits", id="m1")
            await rig.stub.GetMismatch(asked, metadata=bearer("operator"))
    lines = [each for each in logged if each["event"] == "audit"]
    keys = ("who", "method", "code", "route")
    assert [tuple(each.get(key) for key in keys) for each in lines] == [
        ("operator-1", "SetWeights", "OK", "digits"),
        ("viewer-1", "SetWeights", "PERMISSION_DENIED", None),
        ("anonymous", "SetWeights", "UNAUTHENTICATED", None),
        ("operator-1", "GetMismatch", "OK", "digits"),
    ]


# ---------------------------------------------------------------- TLS


async def test_with_tls_it_is_called_by_tls_and_by_nothing_else(
    config: Callable[..., RouterConfig], authority: Authority
) -> None:
    async with ControlRig(config(tls=served_by(authority)), tls=Tls(authority.ca)) as rig:
        assert await outcome(rig.stub.ListRoutes(pb.ListRoutesRequest())) == "OK"
        async with Target(rig.address).open_aio_channel() as plain:
            listing = RouteControlStub(plain).ListRoutes(pb.ListRoutesRequest())
            assert await outcome(listing) == "UNAVAILABLE"


async def test_with_an_authority_of_callers_each_must_show_a_certificate(
    config: Callable[..., RouterConfig], authority: Authority
) -> None:
    tls = served_by(authority, asks=True)
    async with ControlRig(config(tls=tls), tls=Tls(authority.ca)) as rig:
        code, _ = await refusal(rig.stub.ListRoutes(pb.ListRoutesRequest()))
    assert code == "UNAVAILABLE"


async def test_wrong_files_stop_the_start(
    config: Callable[..., RouterConfig], authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match=r"tokens\.yaml: no such file"):
        ControlRig(config(tokens=tmp_path / "tokens.yaml"))
    one, other = authority.server("one"), authority.server("other")
    rig = ControlRig(config(tls=TlsConfig(cert=one.cert, key=other.key)))
    with pytest.raises(StartError, match=r"other-key\.pem: not the key of"):
        await rig.listener.open(lambda _: None, lambda _: None)


# ---------------------------------------------------------------- the socket


async def test_the_socket_is_for_proxies_alone_and_asks_for_no_token(
    config: Callable[..., RouterConfig], authority: Authority, tokens: Path, tmp_path: Path
) -> None:
    guarded = config(tls=served_by(authority), tokens=tokens)
    socket = f"unix:{tmp_path}/c.sock"
    async with (
        ControlRig(guarded, socket=socket, tls=Tls(authority.ca)),
        Target(socket).open_aio_channel() as channel,
    ):
        found = {method: await outcome(call()) for method, call in calls(channel).items()}
        operator = with_metadata(
            channel,
            Target(socket, token=TOKENS["operator"], token_in_plaintext=True).token_metadata(),
        )
        changing = await outcome(RouteControlStub(operator).SetWeights(weights()))
    assert found.pop("Follow") in {"OK", "CANCELLED"}
    assert found.pop("Send") == "ABORTED", "let in"
    assert set(found.values()) == {"UNIMPLEMENTED"}
    assert changing == "UNIMPLEMENTED"


async def test_only_this_user_may_open_the_socket(
    config: Callable[..., RouterConfig], tmp_path: Path
) -> None:
    file = tmp_path / "c.sock"
    async with ControlRig(config(), socket=f"unix:{file}"):
        found = file.stat().st_mode
        assert stat.S_ISSOCK(found)
        assert stat.S_IMODE(found) == 0o600
    after = tmp_path / "after"
    after.touch()
    assert stat.S_IMODE(after.stat().st_mode) & 0o044, "the mask is the socket's alone"


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("listen", "tls", "tokens", "is_told"),
    [
        ("127.0.0.1:9002", "one way", False, False),
        ("0.0.0.0:9002", "one way", False, True),
        ("0.0.0.0:9002", "one way", True, False),
        ("0.0.0.0:9002", "both ways", False, False),
        ("0.0.0.0:9002", "", False, False),
    ],
)
def test_tls_that_lets_anybody_change_the_weights_is_said(
    listen: str, tls: str, tokens: bool, is_told: bool
) -> None:
    file = Path("x")
    asks = TlsConfig(cert=file, key=file, client_ca=file if tls == "both ways" else None)
    config = ControlConfig(
        listen=listen, tls=asks if tls else None, tokens=file if tokens else None
    )
    assert bool(guard_advice(config)) is is_told
