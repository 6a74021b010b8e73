"""Tokens: the file, and who shows one."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.access.tokens import (
    Principal,
    Principals,
    Role,
    new_token,
    principal_for,
    read_tokens,
    role_of,
    token_digest,
    token_in,
)
from coalmine.errors import StartError, Unauthenticated

NOW_NS = 1_800_000_000 * 10**9


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def entry(name: str = "ci", role: str = "caller", token: str = "secret", more: str = "") -> str:
    return f'- {{name: "{name}", role: {role}, sha256: "{sha256(token)}"{more}}}\n'


def written(folder: Path, *entries: str) -> Path:
    path = folder / "tokens.yaml"
    path.write_text("tokens:\n" + "".join(entries))
    return path


# ---------------------------------------------------------------- the file


def test_a_file_names_who_shows_which_token(tmp_path: Path) -> None:
    found = read_tokens(
        written(
            tmp_path,
            entry(),
            entry("anna@example.org", "operator", "other", ", expires: 2027-01-01T00:00:00Z"),
        )
    )
    assert found == {
        token_digest("secret"): Principal("ci", Role.CALLER),
        token_digest("other"): Principal("anna@example.org", Role.OPERATOR, 1_798_761_600 * 10**9),
    }


def test_a_file_of_no_tokens_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("tokens: []")
    assert read_tokens(path) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tokens: missing"),
        ("tokens: {}", "tokens: input should be a valid tuple"),
        (
            f"tokens:\n{entry(role='boss')}",
            "tokens.0.role: expected one of viewer, caller, proxy, op",
        ),
        (f"tokens:\n{entry(role='3')}", "tokens.0.role: expected one of viewer, caller, proxy, op"),
        (f"tokens:\n{entry(name='two words')}", "tokens.0.name: string should match pattern"),
        (f"tokens:\n{entry(name='')}", "tokens.0.name: string should match pattern"),
        ("tokens: [{name: a, role: caller, sha256: secret}]", "tokens.0.sha256: string should"),
        ("tokens: [{name: a, role: caller}]", "tokens.0.sha256: missing"),
        (f"tokens:\n{entry(more=', token: x')}", "tokens.0.token: unknown key"),
        (f"tokens:\n{entry(more=', expires: soon')}", "tokens.0.expires: "),
        (f"tokens:\n{entry(more=', expires: 2027-01-01T00:00:00')}", "tokens.0.expires: "),
        (f"tokens:\n{entry()}{entry(token='b')}", "name 'ci' is there twice"),
        (f"tokens:\n{entry()}{entry(name='b')}", "sha256 '2bb80d537b1da3e38bd30361aa855686bde0ea"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(StartError) as caught:
        read_tokens(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- who shows one


@pytest.fixture
def principals() -> Principals:
    return {
        token_digest("secret"): Principal("ci", Role.CALLER),
        token_digest("short"): Principal("guest", Role.VIEWER, expires_ns=NOW_NS),
    }


def test_a_token_tells_who_calls(principals: Principals) -> None:
    assert principal_for(principals, "secret", NOW_NS).name == "ci"


@pytest.mark.parametrize("token", ["", "Secret", "secret ", sha256("secret"), "sécret"])
def test_another_text_tells_nobody(principals: Principals, token: str) -> None:
    with pytest.raises(Unauthenticated, match="not known"):
        principal_for(principals, token, NOW_NS)


def test_a_token_ends_when_it_expires(principals: Principals) -> None:
    assert principal_for(principals, "short", NOW_NS - 1).name == "guest"
    with pytest.raises(Unauthenticated, match="the token of 'guest' has expired"):
        principal_for(principals, "short", NOW_NS)


@given(st.text(), st.text())
def test_only_the_token_itself_is_taken(real: str, other: str) -> None:
    known = {token_digest(real): Principal("a", Role.VIEWER)}
    if real == other:
        assert principal_for(known, other, 0).name == "a"
    else:
        with pytest.raises(Unauthenticated):
            principal_for(known, other, 0)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_written_as_anybody_likes(scheme: str) -> None:
    assert token_in([("user-agent", "x"), ("authorization", f"{scheme} abc")]) == "abc"


@pytest.mark.parametrize("value", ["abc", "Basic abc", "Bearer", "", b"Bearer abc"])
def test_another_scheme_is_refused(value: str | bytes) -> None:
    with pytest.raises(Unauthenticated, match="expected 'Bearer TOKEN'"):
        token_in([("authorization", value)])


def test_no_token_is_refused_with_what_is_wanted() -> None:
    with pytest.raises(Unauthenticated, match="a token is needed"):
        token_in([("user-agent", "x")])


def test_a_new_token_is_long_new_and_one_word() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) >= 43 and each.startswith("cm_") and each.isascii() for each in made)
    assert all(" " not in each for each in made)


def test_roles_are_ordered() -> None:
    assert role_of("viewer") < role_of("caller") < role_of("proxy") < role_of("operator")
    assert [role.word for role in Role] == ["viewer", "caller", "proxy", "operator"]
