"""Who may call which method, decided without a server."""

from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coalmine.access.authorization import Authorization
from coalmine.access.tokens import Role, token_digest
from coalmine.clock import SystemClock
from coalmine.errors import PermissionDenied, Unauthenticated
from coalmine.inference import inference_pb2
from coalmine_server.grpc_front.method_access import CHANGING, ROLES, audit_of_changes

SERVICE = "/inference.GRPCInferenceService"
TOKENS = {"viewer": "v" * 40, "caller": "c" * 40, "proxy": "p" * 40, "operator": "o" * 40}


@pytest.fixture
def access(tmp_path: Path) -> Authorization:
    file = tmp_path / "tokens.yaml"
    lines = [
        f'- {{name: {role}-1, role: {role}, sha256: "{token_digest(token).hex()}"}}'
        for role, token in TOKENS.items()
    ]
    file.write_text("\n".join(["tokens:", *lines]))
    return Authorization.from_file(file, ROLES, SystemClock())


def shows(role: str) -> list[tuple[str, str]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {TOKENS[role]}")]


def may(access: Authorization, role: str, method: str) -> bool:
    try:
        access.check(method, shows(role))
    except PermissionDenied:
        return False
    return True


@pytest.mark.parametrize(
    ("method", "allowed"),
    [
        ("ServerReady", {"viewer", "caller", "proxy", "operator"}),
        ("ModelReady", {"viewer", "caller", "proxy", "operator"}),
        ("ServerMetadata", {"viewer", "caller", "proxy", "operator"}),
        ("ModelMetadata", {"viewer", "caller", "proxy", "operator"}),
        ("ModelConfig", {"viewer", "caller", "proxy", "operator"}),
        ("ModelStatistics", {"viewer", "caller", "proxy", "operator"}),
        ("RepositoryIndex", {"viewer", "caller", "proxy", "operator"}),
        ("ModelInfer", {"caller", "proxy", "operator"}),
        ("ModelStreamInfer", {"caller", "proxy", "operator"}),
        ("RepositoryModelLoad", {"operator"}),
        ("RepositoryModelUnload", {"operator"}),
        ("AMethodOfTomorrow", {"operator"}),
    ],
)
def test_each_role_may_do_its_own_and_no_more(
    access: Authorization, method: str, allowed: set[str]
) -> None:
    assert {role for role in TOKENS if may(access, role, f"{SERVICE}/{method}")} == allowed


@pytest.mark.parametrize(
    "method",
    [
        f"{SERVICE}/ServerLive",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    ],
)
def test_probes_need_no_token(access: Authorization, method: str) -> None:
    access.check(method, [])
    access.check(method, [("authorization", "Bearer unknown")])


def test_every_other_method_needs_one(access: Authorization) -> None:
    for method in [each for each, role in ROLES.items() if role is not None]:
        with pytest.raises(Unauthenticated):
            access.check(method, [("user-agent", "x")])


def test_every_method_that_is_offered_has_a_role() -> None:
    services: list[Any] = [
        *inference_pb2.DESCRIPTOR.services_by_name.values(),
        *health_pb2.DESCRIPTOR.services_by_name.values(),
        *reflection_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    offered = {f"/{each.full_name}/{method.name}" for each in services for method in each.methods}
    assert offered <= set(ROLES)


def test_what_changes_things_is_for_operators_and_is_recorded() -> None:
    changing = {f"{SERVICE}/{method}" for method in CHANGING}
    assert {method for method, role in ROLES.items() if role is Role.OPERATOR} == changing
    assert audit_of_changes(None, SystemClock()).methods == set(CHANGING)


def test_a_refusal_says_who_is_what_and_what_is_needed(access: Authorization) -> None:
    with pytest.raises(PermissionDenied) as caught:
        access.check(f"{SERVICE}/ModelInfer", shows("viewer"))
    assert str(caught.value) == "ModelInfer needs role caller, 'viewer-1' is viewer"
