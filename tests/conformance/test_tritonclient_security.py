"""TLS, client certificates and tokens as tritonclient uses them, sync and asyncio."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from tests.doubles.certificates import Authority
from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of, server_of

Files = dict[str, str]

ANSWER = 64.0
ROLES = ("viewer", "caller", "operator")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Write the certificates of a server, of a caller, and of an authority nobody here trusts."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder / "ours"), Authority(folder / "other")
    server, client, stranger = authority.server(), authority.client(), other.client()
    paths = {
        "ca": authority.ca,
        "server_cert": server.cert,
        "server_key": server.key,
        "cert": client.cert,
        "key": client.key,
        "other_ca": other.ca,
        "other_cert": stranger.cert,
        "other_key": stranger.key,
    }
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of one model: what these servers serve doesn't matter."""
    folder = tmp_path_factory.mktemp("one")
    copytree(repository / "digits", folder / "digits")
    return folder


def tls(files: Files) -> list[str]:
    return ["--tls-cert", files["server_cert"], "--tls-key", files["server_key"]]


@pytest.fixture(scope="module")
def tokens_server(
    files: Files, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("tokens")
    entries = [
        {"name": role, "role": role, "sha256": hashlib.sha256(f"{role}-token".encode()).hexdigest()}
        for role in ROLES
    ]
    (folder / "tokens.yaml").write_text(json.dumps({"tokens": entries}))  # JSON is YAML too
    options = [*tls(files), "--tokens", str(folder / "tokens.yaml"), "--allow-load"]
    with server_of(models, folder, *options) as running:
        yield running


@pytest.fixture(scope="module")
def mutual_server(
    files: Files, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    options = [*tls(files), "--tls-client-ca", files["ca"]]
    with server_of(models, tmp_path_factory.mktemp("mutual"), *options) as running:
        yield running


def seen(server: Started, files: Files, kind: str) -> Output:
    caller = "tests.conformance.callers.security"
    output: Output = output_of(caller, kind, server.address("grpc"), json.dumps(files))
    return output


@pytest.fixture(scope="module", params=["sync", "aio"])
def tokens(tokens_server: Started, files: Files, request: pytest.FixtureRequest) -> Output:
    return seen(tokens_server, files, request.param)


@pytest.fixture(scope="module", params=["sync", "aio"])
def mutual(mutual_server: Started, files: Files, request: pytest.FixtureRequest) -> Output:
    return seen(mutual_server, files, request.param)


def test_a_caller_that_trusts_the_authority_and_shows_its_token_is_answered(tokens: Output) -> None:
    assert tokens["no_certificate"] == ANSWER
    assert tokens["certificate"] == ANSWER, "a certificate that nobody asked for does no harm"


@pytest.mark.parametrize("given", ["no_tls", "other_authority"])
def test_a_caller_without_tls_or_trust_does_not_reach_the_server(
    tokens: Output, given: str
) -> None:
    assert tokens[given]["status"] == "StatusCode.UNAVAILABLE", tokens[given]


@pytest.mark.parametrize("given", ["no_token", "wrong_token"])
def test_a_caller_without_a_known_token_is_unauthenticated(tokens: Output, given: str) -> None:
    assert tokens[given]["status"] == "StatusCode.UNAUTHENTICATED", tokens[given]
    assert "nobody's" not in tokens[given]["message"]


@pytest.mark.parametrize(
    ("role", "refused"),
    [("viewer", ["infer", "load_model"]), ("caller", ["load_model"]), ("operator", [])],
)
def test_a_token_may_do_what_its_role_may(tokens: Output, role: str, refused: list[str]) -> None:
    expected = {
        method: "StatusCode.PERMISSION_DENIED" if method in refused else None
        for method in tokens[role]
    }
    assert tokens[role] == expected


def test_a_caller_with_a_certificate_of_the_authority_is_answered(mutual: Output) -> None:
    assert mutual["certificate"] == ANSWER


@pytest.mark.parametrize("given", ["no_tls", "no_certificate", "strangers_certificate"])
def test_a_caller_without_such_a_certificate_does_not_reach_the_server(
    mutual: Output, given: str
) -> None:
    assert mutual[given]["status"] == "StatusCode.UNAVAILABLE", mutual[given]
