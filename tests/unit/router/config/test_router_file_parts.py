"""The parts of router.yaml that say how requests are forwarded: each is right, or named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from coalmine.errors import StartError
from coalmine_router.config.file import RouterConfig, parse_config
from coalmine_router.table import BackendTls, Limits, Match, RouteTable, Sticky

FILE = Path("router.yaml")
MIB = 1024 * 1024


def content(**route: Any) -> dict[str, Any]:
    """Return a file of one route, with these parts changed; None takes one out."""
    parts = {
        "name": "digits",
        "match": {"model": "digits"},
        "variants": {"stable": {"backend": "blue"}},
        **route,
    }
    return {
        "backends": {"blue": {"targets": ["localhost:8001"]}},
        "routes": [{key: value for key, value in parts.items() if value is not None}],
    }


def with_backend(**backend: Any) -> dict[str, Any]:
    changed = content()
    changed["backends"]["blue"].update(backend)
    return changed


def read(said: dict[str, Any]) -> RouterConfig:
    return parse_config(yaml.safe_dump(said), path=FILE)


def table(**route: Any) -> RouteTable:
    return read(content(**route)).table()


def refusal(said: dict[str, Any]) -> str:
    with pytest.raises(StartError) as caught:
        read(said)
    line = str(caught.value)
    assert line.startswith("router.yaml: ")
    assert "\n" not in line
    return line.removeprefix("router.yaml: ")


# ---------------------------------------------------------------- what a route matches


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"model": "digits"}, Match("digits")),
        ({"default": True}, Match(is_default=True)),
        ({"service": "shop.v1.Cart"}, Match(service="shop.v1.Cart")),
        ({"service": "shop.Cart", "method": "Add"}, Match(service="shop.Cart", method="Add")),
    ],
)
def test_a_match_is_a_model_the_rest_or_a_service(said: dict[str, Any], match: Match) -> None:
    assert table(match=said).routes[0].match == match


ONE_OF = "routes.0.match: expected one of model, default: true, and service"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, ONE_OF),
        ({"default": False}, ONE_OF),
        ({"model": "digits", "default": True}, ONE_OF),
        ({"model": "digits", "service": "shop.Cart"}, ONE_OF),
        ({"method": "Add"}, ONE_OF),
        ({"model": "digits", "method": "Add"}, "routes.0.match: a method goes with its service"),
        ({"service": "shop/Cart"}, "routes.0.match.service: string should match pattern"),
        ({"service": "shop.Cart", "method": "*"}, "routes.0.match.method: string should match"),
        ({"service": "shop.Cart", "method": "a/b"}, "routes.0.match.method: string should match"),
        ({"service": "s" * 257}, "routes.0.match.service: string should have at most 256 charac"),
    ],
)
def test_any_other_match_is_refused_by_its_place(said: dict[str, Any], why: str) -> None:
    assert refusal(content(match=said)).startswith(why)


# ---------------------------------------------------------------- sticky keys


@pytest.mark.parametrize(
    ("said", "sticky"),
    [
        ({"metadata": "x-user-id"}, Sticky("x-user-id")),
        ({"parameter": "user id"}, Sticky(parameter="user id")),
        ({"id": True}, Sticky(id=True)),
        (None, Sticky()),
    ],
)
def test_a_sticky_key_is_in_one_place(said: Any, sticky: Sticky) -> None:
    assert table(sticky=said).routes[0].sticky == sticky


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "routes.0.sticky: expected one of metadata, parameter, and id: true"),
        ({"id": False}, "routes.0.sticky: expected one of metadata, parameter, and id: true"),
        ({"id": True, "metadata": "x-user"}, "routes.0.sticky: expected one of metadata, param"),
        ({"parameter": ""}, "routes.0.sticky.parameter: string should have at least 1 character"),
        ({"metadata": "user-bin"}, "routes.0.sticky.metadata: 'user-bin' holds bytes"),
        ({"metadata": "user-agent"}, "routes.0.sticky.metadata: 'user-agent' is gRPC's own"),
        ({"metadata": "te"}, "routes.0.sticky.metadata: 'te' is gRPC's own"),
        ({"metadata": "grpc-timeout"}, "routes.0.sticky.metadata: 'grpc-timeout' is gRPC's own"),
        ({"metadata": "X-User"}, "routes.0.sticky.metadata: string should match pattern"),
        ({"metadata": ":path"}, "routes.0.sticky.metadata: string should match pattern"),
    ],
)
def test_a_key_that_says_nothing_of_the_caller_is_refused_by_its_place(
    said: dict[str, Any], why: str
) -> None:
    assert refusal(content(sticky=said)).startswith(why)


@pytest.mark.parametrize("said", [{"parameter": "user"}, {"id": True}])
def test_requests_of_another_service_are_sticky_by_metadata_alone(said: dict[str, Any]) -> None:
    wrong = content(match={"service": "shop.Cart"}, sticky=said)
    assert refusal(wrong) == (
        "route 'digits': requests of another service are sticky by metadata alone"
    )


# ---------------------------------------------------------------- fallback and limits


def test_fallback_is_off_unless_it_is_asked_for() -> None:
    assert not table().routes[0].fallback
    assert table(fallback=True).routes[0].fallback


def test_a_route_has_no_limits_of_its_own_and_a_proxy_has_ample_ones() -> None:
    assert table().routes[0].limits == Limits()
    assert table().limits == Limits(4_096, 1024 * MIB)


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ({"in_flight": 8, "bytes": "64MiB"}, Limits(8, 64 * MIB)),
        ({"in_flight": 8}, Limits(8, 0)),
        ({"bytes": "1.5KiB"}, Limits(0, 1_536)),
        ({"in_flight": 0, "bytes": "0MiB"}, Limits()),
    ],
)
def test_limits_are_of_a_route_or_of_the_whole_proxy(said: dict[str, Any], limits: Limits) -> None:
    assert table(limits=said).routes[0].limits == limits
    assert read({**content(), "limits": said}).table().limits == limits


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"in_flight": -1}, "limits.in_flight: input should be greater than or equal to 0"),
        ({"in_flight": 1_000_001}, "limits.in_flight: input should be less than or equal to"),
        ({"in_flight": 1.5}, "limits.in_flight: input should be a valid integer"),
        ({"bytes": 64}, "limits.bytes: expected a size such as 16KiB, 64MiB or 1GiB, got 64"),
        ({"bytes": "64MB"}, "limits.bytes: expected a size such as"),
        ({"rows": 5}, "limits.rows: unknown key"),
    ],
)
def test_limits_that_are_none_are_refused_by_their_place(said: dict[str, Any], why: str) -> None:
    assert refusal({**content(), "limits": said}).startswith(why)
    assert refusal(content(limits=said)).startswith(f"routes.0.{why}")


# ---------------------------------------------------------------- segments


@pytest.mark.parametrize("key", ["authorization", "cookie"])
def test_a_credential_is_no_segment(key: str) -> None:
    assert refusal(content(segment={"metadata": key})) == (
        f"routes.0.segment.metadata: '{key}' is a credential, and segments are kept and shown"
    )


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize(
    "target",
    [
        "localhost:8001",
        "10.0.0.7:8001",
        "[::1]:8001",
        "dns:server-blue:8001",
        "dns:///server-blue:8001",
        "dns://10.0.0.53/server-blue:8001",
        "ipv4:10.0.0.7:8001",
        "ipv6:[::1]:8001",
        "unix:/run/blue.sock",
        "unix:blue.sock",
    ],
)
def test_a_target_is_what_grpc_can_connect_to(target: str) -> None:
    assert read(with_backend(targets=[target])).table().backends[0].targets == (target,)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        "localhost:",
        ":8001",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        "http://localhost:8001",
        "dns:///",
        "dns:///server-blue",
        "dns:///:8001",
        "unix:",
        "unix:/",
        "two words:8001",
        "server\n:8001",
        "sörver:8001",
        "s" * 300 + ":8001",
    ],
)
def test_a_target_that_grpc_could_never_reach_is_refused_by_its_place(target: str) -> None:
    assert refusal(with_backend(targets=["localhost:1", target])).startswith(
        "backends.blue.targets.1: expected host:port, dns:///host:port or unix:PATH, got "
    )


def test_a_backend_has_at_least_one_target_and_at_most_64() -> None:
    assert refusal(with_backend(targets=[])).startswith("backends.blue.targets: ")
    many = [f"localhost:{port}" for port in range(1, 66)]
    assert refusal(with_backend(targets=many)).startswith("backends.blue.targets: ")
    assert len(read(with_backend(targets=many[:64])).table().backends[0].targets) == 64


@pytest.mark.parametrize(
    ("said", "tls"),
    [
        (None, None),
        ({}, BackendTls()),
        ({"ca": "ca.pem"}, BackendTls(ca="ca.pem")),
        (
            {"ca": "ca.pem", "cert": "c.pem", "key": "k.pem", "server_name": "blue.internal"},
            BackendTls("ca.pem", "c.pem", "k.pem", "blue.internal"),
        ),
    ],
)
def test_a_backend_is_reached_in_plaintext_or_by_these_files(
    said: Any, tls: BackendTls | None
) -> None:
    config = with_backend(tls=said) if said is not None else content()
    assert read(config).table().backends[0].tls == tls


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cert": "c.pem"}, "backends.blue.tls: a certificate and its key go together"),
        ({"key": "k.pem"}, "backends.blue.tls: a certificate and its key go together"),
        ({"server_name": ""}, "backends.blue.tls.server_name: string should have at least 1"),
        ({"insecure": True}, "backends.blue.tls.insecure: unknown key"),
    ],
)
def test_tls_that_is_half_said_is_refused_by_its_place(said: dict[str, Any], why: str) -> None:
    assert refusal(with_backend(tls=said)).startswith(why)


def test_a_token_file_is_only_named_and_not_read_here() -> None:
    config = read(with_backend(token_file="/nowhere/token"))
    assert config.table().backends[0].token_file == "/nowhere/token"


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "-1"])
@pytest.mark.parametrize("key", ["rtol", "atol"])
def test_a_tolerance_that_anything_or_nothing_is_within_is_refused_by_its_place(
    key: str, value: str
) -> None:
    text = yaml.safe_dump(content())
    text += f"  compare: {{outputs: {{logits: {{rule: close, {key}: {value}}}}}}}\n"
    with pytest.raises(StartError) as caught:
        parse_config(text, path=FILE)
    place = f"router.yaml: routes.0.compare.outputs.logits.close.{key}: "
    assert str(caught.value).startswith(place)
