"""The operator's verbs against a control API that asks for TLS and a token."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from coalmine_client.cli.root import program
from tests.doubles.certificates import Authority
from tests.doubles.control import FakeControl, made_well, serving

Run = Callable[..., Result]

VERBS = [
    "routes",
    "status digits",
    "status digits --watch",
    "weights digits canary=10",
    "shadow digits int8=25%",
    "history digits",
    "mismatches digits",
    "mismatches digits --show m-17",
]


@pytest.fixture
def control() -> FakeControl:
    found = FakeControl()
    made_well(found.answers["GetRoute"])
    return found


@pytest.fixture
def run(control: FakeControl, authority: Authority) -> Iterator[Run]:
    """Run `coalmine VERB…` with the address and these variables in the environment."""
    pair = authority.server()
    with serving(control, pair) as address:
        yield lambda line, **environment: CliRunner().invoke(
            program(), line.split(), env={"COALMINE_CONTROL": address, **environment}
        )


@pytest.mark.parametrize("line", VERBS)
def test_every_verb_calls_by_tls_and_shows_its_token(
    run: Run, control: FakeControl, authority: Authority, line: str
) -> None:
    done = run(line, COALMINE_CA=str(authority.ca), COALMINE_TOKEN="cm_abc")
    assert done.exit_code == 0 or "--watch" in line, done.output
    assert control.requests
    assert set(control.shown) == {"Bearer cm_abc"}


@pytest.mark.parametrize("line", VERBS)
def test_the_options_do_as_the_variables_do(
    run: Run, control: FakeControl, authority: Authority, line: str
) -> None:
    alice = authority.client("alice")
    run(
        f"{line} --ca {authority.ca} --cert {alice.cert} --key {alice.key} "
        "--server-name localhost --token cm_xyz"
    )
    assert set(control.shown) == {"Bearer cm_xyz"}


def test_without_a_token_none_is_shown(
    run: Run, control: FakeControl, authority: Authority
) -> None:
    assert run("routes", COALMINE_CA=str(authority.ca)).exit_code == 0
    assert set(control.shown) == {None}


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            grpc.StatusCode.UNAUTHENTICATED,
            "routes: why (UNAUTHENTICATED); give a token that is known there, by COALMINE_TOKEN",
        ),
        (
            grpc.StatusCode.PERMISSION_DENIED,
            "routes: why (PERMISSION_DENIED); give a token of that role, by COALMINE_TOKEN",
        ),
    ],
)
def test_a_wrong_token_is_one_line_that_says_what_to_do(
    run: Run, control: FakeControl, authority: Authority, code: grpc.StatusCode, said: str
) -> None:
    control.errors["ListRoutes"] = (code, "why")
    done = run("routes", COALMINE_CA=str(authority.ca), COALMINE_TOKEN="cm_abc")
    assert done.exit_code == 1
    assert done.stderr == f"coalmine: {said}\n"
    assert "cm_abc" not in done.output


def test_a_wrong_authority_is_one_line_that_says_what_to_do(run: Run, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "another")
    done = run("routes", COALMINE_CA=str(other.ca))
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("; its certificate is of an authority that --ca doesn't trust\n")


def test_a_call_without_tls_is_one_line_that_says_what_to_do(run: Run) -> None:
    done = run("routes")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "it may ask for TLS (--ca)" in done.stderr


def test_wrong_files_and_tokens_are_wrong_usage(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    for line, said in (
        (f"routes --ca {tmp_path}/absent.pem", "absent.pem: no such file or directory"),
        (f"routes --cert {authority.ca}", "a caller's certificate and its key go together"),
        ("routes --control 10.0.0.7:1 --token abc", "would go to 10.0.0.7:1 unencrypted"),
    ):
        done = run(line)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
