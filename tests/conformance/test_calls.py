"""The list of calls (calls.yaml), from each language, to a server and to a router before it."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from tests.conformance.listed import LIST, Listed, calls, drain, spelt, split, sticky
from tests.conformance.listed_scene import LANGUAGES, address_of, scene
from tests.conformance.runners import Runner, running
from tests.doubles.processes import Started, alive
from tests.doubles.waiting import until
from tests.soak.connections import serving_process

Answer = Mapping[str, Any]

# On a new machine the runners are built in the first test of a language.
pytestmark = pytest.mark.timeout(600)

_SHARES = {name: LIST["split"][name] for name in ("stable", "canary")}
_BACK_S = 30.0
BOTH_UP = {
    "server": 'coalmine_server_workers{state="up"} 2.0',
    "router": "coalmine_router_proxies_current 2.0",
}


def in_each_language(*targets: str) -> Callable[[Any], Any]:
    pairs = [
        pytest.param((language, target), id=f"{language}-{target}", marks=marks_of(language))
        for language in LANGUAGES
        for target in targets
    ]
    return pytest.mark.parametrize("runner", pairs, indirect=True, scope="module")


def marks_of(language: str) -> tuple[Any, ...]:
    return () if language == "python" else (pytest.mark.needs(language),)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Started]]:
    with scene(tmp_path_factory.mktemp("listed")) as started:
        yield started


@pytest.fixture(scope="module")
def runner(
    request: pytest.FixtureRequest, processes: Mapping[str, Started]
) -> Iterator[tuple[str, str, Runner]]:
    language, target = request.param
    with running(language, address_of(processes[target])) as each:
        yield language, target, each


@pytest.fixture
def tell(
    runner: tuple[str, str, Runner], record_property: Callable[[str, Any], None]
) -> Callable[[str, str], None]:
    """Return what fills a field of the table that conftest.py prints at the end."""
    return lambda column, text: record_property("called", [runner[0], column, text])


@in_each_language("server", "router")
def test_every_call_of_the_list_gets_what_it_must(
    runner: tuple[str, str, Runner], tell: Callable[[str, str], None]
) -> None:
    _, target, asked = runner
    listed = calls(target)
    wrong = {each.name: says for each in listed if (says := difference(each, asked))}

    tell(f"calls, {target}", f"{len(listed) - len(wrong)} of {len(listed)}")
    assert wrong == {}


@in_each_language("router")
def test_of_a_hundred_requests_exactly_the_shares_go_to_each_variant(
    runner: tuple[str, str, Runner], tell: Callable[[str, str], None]
) -> None:
    language, _, asked = runner
    answers = [asked.ask(call) for call in split(language)]

    shares = Counter(each["variant"] for each in answers)
    tell("split", f"{shares['stable']} : {shares['canary']}")
    assert [each["id"] for each in answers] == [str(at) for at in range(len(answers))]
    for begin in range(0, len(answers), 100):
        assert Counter(each["variant"] for each in answers[begin : begin + 100]) == _SHARES


KEPT: dict[str, list[str]] = {}


@in_each_language("router")
def test_a_sticky_key_gets_the_same_variant_in_every_language(
    runner: tuple[str, str, Runner], tell: Callable[[str, str], None]
) -> None:
    language, _, asked = runner
    variants = [asked.ask(call)["variant"] for call in sticky()]

    keys = LIST["sticky"]["keys"]
    tell("sticky", f"{keys} keys")
    assert variants[:keys] == variants[keys:]
    assert set(variants) == {"stable", "canary"}
    KEPT[language] = variants
    assert len({tuple(each) for each in KEPT.values()}) == 1


@in_each_language("server", "router")
def test_no_call_fails_where_the_process_that_answers_ends_under_load(
    runner: tuple[str, str, Runner],
    processes: Mapping[str, Started],
    tell: Callable[[str, str], None],
) -> None:
    _, target, asked = runner
    called = processes[target]
    until(lambda: both_up(called, target), _BACK_S)
    asked.begin(drain())
    assert asked.told() == {"loading": True}
    port = int(address_of(called).rpartition(":")[2])
    answering = serving_process(asked.pid, port, called.children())
    os.kill(answering, signal.SIGTERM)

    answer = asked.told()["statuses"]
    tell(f"drain, {target}", f"{answer.get('OK', 0)} of {sum(answer.values())}")
    assert set(answer) == {"OK"}, answer
    until(lambda: not alive(answering), _BACK_S)
    assert answer["OK"] > LIST["drain"]["callers"]


def both_up(called: Started, target: str) -> bool:
    return BOTH_UP[target] in called.page()


# ---------------------------------------------------------------- what a call must get


def difference(listed: Listed, asked: Runner) -> str:
    """Make a call; return in what it differs from what it must get, "" for nothing."""
    answer = asked.ask(listed.call)
    wrong = [
        f"{what}: {answer.get(what)!r} is not {wanted!r}"
        for what, wanted in listed.expect.items()
        if not CHECKS.get(what, is_equal)(answer, what, wanted)
    ]
    return "; ".join([*wrong, answer.get("message", "")]) if wrong else ""


def is_equal(answer: Answer, what: str, wanted: Any) -> bool:
    return bool(answer.get(what) == wanted)


def says(answer: Answer, what: str, wanted: str) -> bool:
    return wanted in answer["message"]


def has_outputs(answer: Answer, what: str, wanted: Any) -> bool:
    if isinstance(wanted, list):  # what metadata says of them
        return is_equal(answer, what, wanted)
    outputs = {each["name"]: each for each in answer.get("outputs", ())}
    return outputs.keys() == wanted.keys() and all(
        has_values(outputs[name], values) for name, values in wanted.items()
    )


def has_values(output: Answer, wanted: list[Any]) -> bool:
    """Compare values that each language spells in its own way, such as 0.1 and 1.0E-1."""
    datatype = output["datatype"]
    if datatype in {"FP32", "FP64"}:
        dtype = np.dtype(f"f{int(datatype[2:]) // 8}")
        return bool(np.array_equal(np.array(output["values"], dtype), np.array(wanted, dtype)))
    return bool(output["values"] == [spelt(each, datatype) for each in wanted])


def has_answers(answer: Answer, what: str, wanted: list[Answer]) -> bool:
    return len(answer["answers"]) == len(wanted) and all(
        got == want if "id" in want else want["error"] in got.get("error", "")
        for got, want in zip(answer["answers"], wanted, strict=True)
    )


CHECKS = {"says": says, "outputs": has_outputs, "answers": has_answers}
