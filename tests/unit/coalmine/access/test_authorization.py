"""Who may call which method, decided without a server."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.access.authorization import (
    STANDARD,
    Authorization,
    AuthorizedMethods,
    ignore_refusal,
    roles_for,
)
from coalmine.access.tokens import Role
from coalmine.clock import SystemClock
from coalmine.errors import PermissionDenied, Unauthenticated
from tests.doubles.callers import bearer, write_tokens

ROLES = {
    **STANDARD,
    **roles_for(Role.VIEWER, "a.Service", "Look"),
    **roles_for(None, "a.B", "Live"),
}


def access(folder: Path, otherwise: Role = Role.OPERATOR) -> Authorization:
    file = write_tokens(folder / "tokens.yaml", "viewer", "caller", "proxy", "operator")
    return Authorization.from_file(file, ROLES, SystemClock(), otherwise=otherwise)


def test_needing_names_methods_in_full() -> None:
    assert roles_for(Role.CALLER, "a.S", "X", "Y") == {"/a.S/X": Role.CALLER, "/a.S/Y": Role.CALLER}


def test_a_method_without_a_role_takes_what_the_others_take(tmp_path: Path) -> None:
    strict, open_ = access(tmp_path), access(tmp_path, Role.CALLER)
    open_.check("/a.Service/Tomorrow", bearer("caller"))
    strict.check("/a.Service/Tomorrow", bearer("operator"))
    with pytest.raises(PermissionDenied, match="Tomorrow needs role operator, 'caller-1' is cal"):
        strict.check("/a.Service/Tomorrow", bearer("caller"))
    with pytest.raises(PermissionDenied):
        open_.check("/a.Service/Tomorrow", bearer("viewer"))


def test_probes_need_no_token_and_reflection_does(tmp_path: Path) -> None:
    guard = access(tmp_path, Role.CALLER)
    guard.check("/grpc.health.v1.Health/Check", ())
    guard.check("/a.B/Live", ())
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        guard.check(method, bearer("viewer"))
        with pytest.raises(Unauthenticated):
            guard.check(method, ())


class Details:
    """A call that came in."""

    def __init__(self, method: str, *metadata: tuple[str, str]) -> None:
        self.method = method
        self.invocation_metadata = metadata


class NoServer:
    """Takes handlers, and does nothing with them."""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing."""


def guarded(folder: Path) -> AuthorizedMethods:
    server: Any = NoServer()
    made = AuthorizedMethods(server, access(folder), ignore_refusal)
    behaviour: Any = object()
    handler: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    made.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("a.Service", {"Look": handler}),)
    )
    return made


def test_who_is_let_in_gets_the_method_itself(tmp_path: Path) -> None:
    details: Any = Details("/a.Service/Look", *bearer("viewer"))
    found = guarded(tmp_path).service(details)
    assert found is not None
    assert found.unary_unary is not None


def test_who_is_not_gets_an_answer_that_reads_no_request(tmp_path: Path) -> None:
    details: Any = Details("/a.Service/Look")
    found = guarded(tmp_path).service(details)
    assert found is not None
    assert found.stream_stream is not None
    assert found.unary_unary is None


def test_a_method_that_nobody_offers_is_not_found_by_those_who_may_ask(tmp_path: Path) -> None:
    details: Any = Details("/a.Service/Tomorrow", *bearer("operator"))
    assert guarded(tmp_path).service(details) is None
