"""The clients in clients/, by their examples, called as their READMEs say."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.conformance.runners import CLIENTS, example
from tests.doubles.certificates import Authority
from tests.doubles.processes import Started
from tests.doubles.server_process import server_of
from tests.doubles.waiting import until

# On a new machine they are built in the first test of a language.
pytestmark = pytest.mark.timeout(600)

LANGUAGES = [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("go", "java", "node")]
in_each_language = pytest.mark.parametrize("language", LANGUAGES)

ROWS = {
    "1": [64.0 * i for i in range(10)],
    "2": [64 * (i + 0.001) for i in range(10)],
}
# Where `python` is the one with the program.
BIN = Path(sys.executable).parent
_TOKEN = "a-token-of-a-caller"
_EXPORT_S = 20.0


def output_of(language: str, *arguments: str, **environment: str) -> Any:
    done = example(language, *arguments, environment=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@in_each_language
def test_the_example_is_answered_by_a_server(language: str, server: Started) -> None:
    output = output_of(language, server.address("grpc"))

    assert (output["model"], output["version"], output["variant"]) == ("digits", "2", "")
    assert output["logits"] == pytest.approx(ROWS["2"])
    assert output["streamed"] == 3


@in_each_language
def test_the_example_names_the_variant_and_the_trace_that_the_router_has(
    language: str, router: Started
) -> None:
    output = output_of(language, router.address("data"), "both")

    assert output["variant"] == {"1": "stable", "2": "canary"}[output["version"]]
    assert output["logits"] == pytest.approx(ROWS[output["version"]])
    until(lambda: len(spans_of(router, output["trace"])) >= 2, _EXPORT_S)
    # The call and the stream, each under a span of the caller.
    assert all(span.get("parentSpanId") for span in spans_of(router, output["trace"]))


@in_each_language
def test_an_error_says_whose_it_is(language: str, server: Started, router: Started) -> None:
    by_server = example(language, server.address("grpc"), "nobody")
    by_router = example(language, router.address("data"), "nobody")

    assert (by_server.returncode, by_router.returncode) == (1, 1)
    assert "from the server: model 'nobody' is unknown" in by_server.stderr
    assert "from the router: no route for model 'nobody'" in by_router.stderr


@in_each_language
def test_the_example_trusts_an_authority_and_shows_a_token(
    language: str, secured: tuple[Started, Path]
) -> None:
    running, ca = secured
    address = running.address("grpc")
    output = output_of(language, address, COALMINE_CA=str(ca), COALMINE_TOKEN=_TOKEN)
    refused = example(
        language, address, environment={"COALMINE_CA": str(ca), "COALMINE_TOKEN": "another"}
    )

    assert output["version"] == "2"
    assert refused.returncode == 1
    assert "unauthenticated" in refused.stderr.lower()


@in_each_language
def test_a_token_never_travels_in_the_clear(language: str, server: Started) -> None:
    done = example(language, server.address("grpc"), environment={"COALMINE_TOKEN": _TOKEN})

    assert done.returncode == 1
    assert "TLS" in done.stderr or "transport level security" in done.stderr


def test_the_readmes_say_how_to_make_something_to_call(tmp_path: Path) -> None:
    [block] = {called_of(each) for each in CLIENTS.glob("*/README.md")}
    lines = block.replace("\\\n", " ").splitlines()
    # What comes first installs the program, and what comes last serves.
    typed = [each.replace("coalmine ", "$COALMINE ", 1) for each in lines[1:-1]]
    program = f"{sys.executable} -m coalmine_client"
    done = subprocess.run(
        ["bash", "-euc", "\n".join([*typed, "$COALMINE server check models"])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COALMINE": program, "PATH": f"{BIN}:{os.environ['PATH']}"},
        check=False,
    )

    assert lines[-1] == "coalmine server run --model-repository models --traces traces"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def called_of(readme: Path) -> str:
    """Return the commands of a README's first part."""
    part = readme.read_text().partition("## Something to call")[2]
    return part.partition("```sh\n")[2].partition("```")[0]


@pytest.mark.needs("go")
def test_the_tests_of_the_go_module_pass() -> None:
    done = subprocess.run(
        ["go", "test", "./..."], capture_output=True, text=True, cwd=CLIENTS / "go", check=False
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_all_clients_set_their_channels_up_alike() -> None:
    configs = [each for each in CLIENTS.rglob("service_config.json") if "target" not in each.parts]

    assert len(configs) == 3
    assert len({each.read_text() for each in configs}) == 1


@pytest.fixture(scope="module")
def secured(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Started, Path]]:
    folder = tmp_path_factory.mktemp("secured")
    copytree(repository / "digits", folder / "models" / "digits")
    authority = Authority(folder / "authority")
    pair = authority.server()
    sha256 = hashlib.sha256(_TOKEN.encode()).hexdigest()
    entries = [{"name": "caller", "role": "caller", "sha256": sha256}]
    (folder / "tokens.yaml").write_text(json.dumps({"tokens": entries}))  # JSON is YAML too
    options = ("--tls-cert", pair.cert, "--tls-key", pair.key, "--tokens", folder / "tokens.yaml")
    with server_of(folder / "models", folder, *options) as running:
        yield running, authority.ca


def spans_of(router: Started, trace: str) -> list[Any]:
    """Return the spans of a trace that the router wrote."""
    files = (router.log.parent / "state" / "traces").glob("*.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines() if trace in line]
    return [
        span
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["traceId"] == trace
    ]
