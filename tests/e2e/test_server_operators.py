"""The operator's verbs at a real server, who may use them, and what the log says of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.doubles.callers import TOKENS, write_tokens
from tests.doubles.certificates import Authority
from tests.doubles.processes import Started, ran, started
from tests.doubles.waiting import until
from tests.models import Linear, config, write_model

PORTS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")

Verb = Callable[..., CompletedProcess[str]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "models", "digits", {1: Linear()}, config())
    return tmp_path / "models"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", "viewer", "caller", "operator")


@pytest.fixture
def guarded(models: Path, authority: Authority, tokens: Path, tmp_path: Path) -> Iterator[Started]:
    pair = authority.server()
    with started(
        *("server", "run", "--model-repository", models, *PORTS, "--allow-load"),
        *("--tls-cert", pair.cert, "--tls-key", pair.key, "--tokens", tokens),
        folder=tmp_path,
    ) as running:
        yield running


@pytest.fixture
def as_role(guarded: Started, authority: Authority, tmp_path: Path) -> Verb:
    """Run `coalmine server …` with a role's token, all said by variables."""

    def run(role: str, *words: str) -> CompletedProcess[str]:
        environment = {
            "COALMINE_SERVER": guarded.address("grpc"),
            "COALMINE_CA": str(authority.ca),
            "COALMINE_TOKEN": TOKENS.get(role, role),
        }
        return ran("server", *words, folder=tmp_path, environment=environment)

    return run


def audited(server: Started) -> list[dict[str, Any]]:
    """Return the audit lines of a server's log, without what is another each time."""
    lines = [each for each in server.log.read_text().splitlines() if each.startswith("{")]
    found = [each for each in map(json.loads, lines) if each["event"] == "audit"]
    for each in found:
        assert each.pop("peer").startswith("ipv4:127.0.0.1:")
        assert each.pop("duration_ms", 0) >= 0
        assert each.pop("timestamp")
        assert each.pop("service") == "coalmine-server"
    return found


def said(level: str, **words: str) -> dict[str, Any]:
    return {"event": "audit", "level": level, **words}


def test_an_operator_lists_unloads_and_loads(guarded: Started, as_role: Verb) -> None:
    listed = as_role("viewer", "models")
    assert listed.stdout == "model   version  state  reason\ndigits  1        READY\n"

    unloaded = as_role("operator", "unload", "digits")
    assert (unloaded.returncode, unloaded.stdout) == (0, "digits is unloaded\n"), unloaded.stderr
    rows = json.loads(as_role("viewer", "models", "--json").stdout)
    assert rows == [
        {"model": "digits", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    ]

    loaded = as_role("operator", "load", "digits")
    assert (loaded.returncode, loaded.stdout) == (0, "digits is loaded\n"), loaded.stderr
    assert json.loads(as_role("viewer", "models", "--json").stdout)[0]["state"] == "READY"
    assert audited(guarded) == [
        said("info", who="operator-1", method="RepositoryModelUnload", model="digits", code="OK"),
        said("info", who="operator-1", method="RepositoryModelLoad", model="digits", code="OK"),
    ]


def test_what_was_refused_is_in_the_log_with_who_asked(guarded: Started, as_role: Verb) -> None:
    unknown, caller = as_role("unknown", "load", "digits"), as_role("caller", "load", "digits")
    missing = as_role("operator", "load", "nowhere")
    assert [unknown.returncode, caller.returncode, missing.returncode] == [1, 1, 1]
    assert unknown.stderr == "coalmine: the token is not known here (UNAUTHENTICATED)\n"
    denied = "RepositoryModelLoad needs role operator, 'caller-1' is caller"
    assert caller.stderr == f"coalmine: {denied} (PERMISSION_DENIED)\n"
    absent = "model 'nowhere' is not in the repository"
    assert missing.stderr == f"coalmine: {absent} (NOT_FOUND)\n"
    load = "RepositoryModelLoad"
    assert audited(guarded) == [
        said(
            "warning",
            who="anonymous",
            method=load,
            code="UNAUTHENTICATED",
            reason="the token is not known here",
        ),
        said("warning", who="caller-1", method=load, code="PERMISSION_DENIED", reason=denied),
        said(
            "warning",
            who="operator-1",
            method=load,
            model="nowhere",
            code="NOT_FOUND",
            reason=absent,
        ),
    ]


def test_a_revoked_token_is_refused_within_seconds_and_a_broken_file_revokes_nothing(
    guarded: Started, as_role: Verb, tokens: Path
) -> None:
    write_tokens(tokens, "operator")
    until(lambda: as_role("viewer", "models").returncode == 1, 15)
    tokens.write_text("tokens: [")
    until(lambda: "changed_file_refused" in guarded.log.read_text(), 15)
    assert as_role("operator", "models").returncode == 0
    assert as_role("viewer", "models").returncode == 1


def test_a_caller_is_known_by_its_certificate_where_there_are_no_tokens(
    models: Path, authority: Authority, tmp_path: Path
) -> None:
    pair, alice = authority.server(), authority.client("alice")
    with started(
        *("server", "run", "--model-repository", models, *PORTS, "--allow-load"),
        *("--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca", authority.ca),
        folder=tmp_path,
    ) as server:
        shows = ("--cert", alice.cert, "--key", alice.key, "--ca", authority.ca)
        address = ("--server", server.address("grpc"))
        loaded = ran("server", "load", "digits", *address, *shows, folder=tmp_path)
        assert loaded.returncode == 0, loaded.stderr
        nobody = ran("server", "models", *address, "--ca", authority.ca, folder=tmp_path)
        assert nobody.returncode == 1
        assert nobody.stderr.startswith("coalmine: cannot reach a server at 127.0.0.1:")
        load = {"method": "RepositoryModelLoad", "model": "digits", "code": "OK"}
        assert audited(server) == [said("info", who="CN=alice", **load)]


def test_a_server_that_loads_nothing_says_so(models: Path, tmp_path: Path) -> None:
    arguments = ("server", "run", "--model-repository", models, *PORTS)
    with started(*arguments, folder=tmp_path) as server:
        address = ("--server", server.address("grpc"))
        refused = ran("server", "unload", "digits", *address, folder=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr == (
            "coalmine: unloading is not offered: it needs --allow-load (UNIMPLEMENTED)\n"
        )
        assert [each["who"] for each in audited(server)] == ["anonymous"]


def test_infer_shows_a_token_over_tls(
    guarded: Started, authority: Authority, tmp_path: Path
) -> None:
    pixels = "pixels=" + json.dumps([[1.0] * 64])
    call = ("infer", guarded.address("grpc"), "digits", "--input", pixels, "--ca", authority.ca)
    answered = ran(*call, "--token", TOKENS["caller"], folder=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert "logits   FP32 [1, 10]" in answered.stdout
    refused = ran(*call, folder=tmp_path)
    assert refused.returncode == 1
    assert "a token is needed" in refused.stderr


# ---------------------------------------------------------------- starting, and verbs alone


@pytest.mark.parametrize("wrong", ["cert", "key", "tokens"])
def test_a_wrong_file_is_one_line_that_names_it_before_anything_listens(
    models: Path, authority: Authority, tokens: Path, tmp_path: Path, wrong: str
) -> None:
    pair = authority.server()
    files = {"cert": pair.cert, "key": pair.key, "tokens": tokens}
    files[wrong].write_text("tokens: nonsense")
    done = ran(
        *("server", "run", "--model-repository", models, *PORTS),
        *("--tls-cert", pair.cert, "--tls-key", pair.key, "--tokens", tokens),
        folder=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == "", "it announces nothing"
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("coalmine: ")]
    assert line.startswith(f"coalmine: {files[wrong]}: ")


def test_a_new_token_is_printed_once_beside_what_the_file_has_to_say(
    tmp_path: Path, models: Path
) -> None:
    made = ran(
        *("server", "token", "ci", "--role", "viewer", "--expires", "2999-01-01T00:00:00Z"),
        folder=tmp_path,
    )
    assert made.returncode == 0
    token = made.stdout.strip()
    assert token not in made.stderr
    entry = next(line for line in made.stderr.splitlines() if line.startswith("  - {"))
    assert yaml.safe_load(entry)[0]["name"] == "ci"
    file = tmp_path / "tokens.yaml"
    file.write_text(f"tokens:\n{entry}\n")
    run = ("server", "run", "--model-repository", models, *PORTS, "--tokens", file)
    with started(*run, folder=tmp_path) as server:
        shows = ("--server", server.address("grpc"), "--token", token)
        assert ran("server", "models", *shows, folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["ci", "--role", "boss"],
            "role: expected one of viewer, caller, proxy, operator, got 'boss'",
        ),
        (["two words", "--role", "caller"], "name: string should match pattern"),
        (["ci", "--role", "caller", "--expires", "soon"], "expires: "),
    ],
)
def test_a_token_for_nobody_is_not_made(words: list[str], problem: str, tmp_path: Path) -> None:
    done = ran("server", "token", *words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"coalmine: {problem}")


def test_a_server_out_of_reach_is_one_line(black_hole: str, tmp_path: Path) -> None:
    done = ran("server", "models", "--server", black_hole, "--timeout", "0.3", folder=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"coalmine: cannot reach a server at {black_hole}: ")


def test_a_token_does_not_go_to_another_machine_unencrypted(tmp_path: Path) -> None:
    done = ran("server", "models", "--server", "10.0.0.7:1", "--token", "abc", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "coalmine: a token would go to 10.0.0.7:1 unencrypted: give the authority (ca) too\n"
    )
