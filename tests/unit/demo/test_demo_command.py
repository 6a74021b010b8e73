import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import StartError
from coalmine_demo import models
from coalmine_demo.account import JudgedShare, OutputRow, Phase, TrafficTally
from coalmine_demo.claims import DemoOutcome
from coalmine_demo.command import conclude, demo_environ, make_work_folder, page_url
from coalmine_demo.demo_failure import StepFailed, step_failures
from coalmine_demo.demo_traces import Traces
from coalmine_demo.evidence import (
    counted_tallies,
    is_settled,
    judged_shares,
    output_rows,
    phase_of,
    uncompared_copies,
)
from coalmine_demo.place import Place
from coalmine_demo.story import Ending, Learnt
from tests.doubles.digits import exchange, heldout

# ---------------------------------------------------------------- the end


def ending(**changed: object) -> Ending:
    """A demo in miniature that went well, but for what is changed."""
    answers = {"stable": (0, 1, 2, 9), "canary": (0, 1, 2, 3), "int8": (0, 1, 2, 9)}
    outcome = DemoOutcome(
        heldout=heldout(**answers, broken=(7, 7, 7, 7)),
        phases=(Phase(1, {"stable": 10_000}, {"broken"}),),
        exchanges=(exchange("stable"),),
        counted={("stable", "broken"): TrafficTally(1, 1), ("stable", "int8"): TrafficTally(50, 1)},
        uncompared=0,
        refused={"broken"},
        judged=(
            JudgedShare("broken", "stable", "fail", "", 10),
            JudgedShare("int8", "stable", "pass", "", 50),
        ),
        traced=1,
        exit_codes={"server": 0},
    )
    learnt = Learnt(pb.RouteStatus(), [], "")
    return Ending(replace(outcome, **changed), learnt, Traces({}))  # type: ignore[arg-type]


def test_the_exit_code_is_0_where_every_claim_came_true(tmp_path: Path) -> None:
    assert conclude(Console(quiet=True), Place(tmp_path), ending()) == 0


@pytest.mark.parametrize(
    "changed", [{"traced": 0}, {"refused": set()}, {"exit_codes": {"server": 1}}], ids=str
)
def test_the_exit_code_is_1_where_one_claim_did_not(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    assert conclude(Console(quiet=True), Place(tmp_path), ending(**changed)) == 1


# ---------------------------------------------------------------- the beginning


def test_what_would_send_spans_or_commands_elsewhere_is_kept_from_the_processes() -> None:
    of = {"OTEL_TRACES_SAMPLER": "always_off", "COALMINE_CONTROL": "y", "PATH": "/bin"}
    assert demo_environ(of) == {"PATH": "/bin"}


def test_where_there_is_a_collector_the_processes_export_beside_their_files() -> None:
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    files = {"OTEL_TRACES_EXPORTER": "otlp,otlp_json_file"}
    assert demo_environ(said | {"OTEL_TRACES_SAMPLER": "always_off"}) == said | files
    assert demo_environ(said | {"OTEL_TRACES_EXPORTER": "none"}) == {}
    assert demo_environ(said | {"OTEL_SDK_DISABLED": "true"}) == {}


def test_the_page_of_a_trace_has_an_address_where_it_was_exported() -> None:
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}
    assert page_url(said, "http://j:16686/") == "http://j:16686/trace/"
    assert page_url({}, "http://j:16686") == ""


def test_the_folder_is_made_where_it_is_not_there(tmp_path: Path) -> None:
    assert make_work_folder(tmp_path / "a" / "b").is_dir()
    assert make_work_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"


def test_a_folder_that_holds_something_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(StartError, match="not an empty folder"):
            make_work_folder(taken)


def test_errors_are_found_in_groups_of_groups() -> None:
    first, second = StepFailed("first"), StepFailed("second")
    group = ExceptionGroup("", [ExceptionGroup("", [first]), second])
    assert step_failures(group) == [first, second]


# ---------------------------------------------------------------- what the router has counted

STATUS = pb.RouteStatus(
    revision=4,
    route=pb.Route(
        variants=[
            pb.Variant(name="stable", weight_bp=9_000),
            pb.Variant(name="canary", weight_bp=1_000),
            pb.Variant(name="int8"),
        ],
        shadows=[
            pb.Shadow(variant="int8", share_bp=10_000),
            pb.Shadow(variant="canary", share_bp=5_000),
        ],
    ),
    comparisons=[
        pb.ComparisonCounts(
            reference="stable",
            candidate="int8",
            verdict=pb.Verdict(
                verdict="fail",
                reason="too many",
                gates=[pb.Gate(gate="errors", observed=3), pb.Gate(gate="mismatch", observed=7)],
            ),
        )
    ],
    shadows=[
        pb.ShadowCounts(variant="int8", compared=12, uncompared=1, dropped={"queue_full": 3}),
        pb.ShadowCounts(variant="canary", role="audit", compared=5),
    ],
)


def trial(match: int, mismatch: int, other_label: int) -> pb.ComparisonCounts:
    same_label = match + mismatch - other_label
    return pb.ComparisonCounts(
        reference="stable",
        candidate="int8",
        match=match,
        mismatch=mismatch,
        error=1,
        skipped=2,
        outputs=[
            pb.OutputCounts(output="logits", match=match, mismatch=mismatch),
            pb.OutputCounts(output="label", match=same_label, mismatch=other_label),
        ],
    )


# The newest has begun with other rules, say: a status would tell of it alone.
TRIALS = [trial(2, 1, 0), trial(4, 3, 1)]


def test_a_phase_has_the_variants_with_weight_and_those_that_get_every_copy() -> None:
    assert phase_of(STATUS) == Phase(4, {"stable": 9_000, "canary": 1_000}, frozenset({"int8"}))


def test_a_tally_counts_labels_and_not_logits_over_all_trials() -> None:
    assert counted_tallies(TRIALS) == {("stable", "int8"): TrafficTally(compared=10, other_label=1)}


def test_the_rows_of_outputs_are_those_that_were_compared_in_all_trials() -> None:
    assert output_rows(TRIALS) == [
        OutputRow("int8", "stable", "logits", 10, 4),
        OutputRow("int8", "stable", "label", 10, 1),
    ]


def test_a_verdict_is_told_with_the_requests_that_it_rests_on() -> None:
    assert judged_shares(STATUS) == [JudgedShare("int8", "stable", "fail", "too many", 7)]


def test_copies_that_were_dropped_failed_or_skipped_are_not_compared() -> None:
    assert uncompared_copies(STATUS, TRIALS) == 4 + 2 * 3


@pytest.mark.parametrize(("expected", "settled"), [(9, True), (16, True), (17, False)])
def test_counts_are_settled_once_every_copy_is_accounted_for(expected: int, settled: bool) -> None:
    assert is_settled(STATUS, {("stable", "int8"): TrafficTally(expected, 0)}) is settled
    both = {
        ("stable", "int8"): TrafficTally(expected - 2, 0),
        ("canary", "int8"): TrafficTally(2, 0),
    }
    assert is_settled(STATUS, both) is settled


def test_counts_are_not_settled_while_a_candidate_is_missing() -> None:
    assert not is_settled(pb.RouteStatus(), {("stable", "int8"): TrafficTally(1, 0)})


# ---------------------------------------------------------------- packaging


class Packager:
    """Does to a repository what `coalmine package` does, as far as the demo can tell."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def call(self, *arguments: str) -> str:
        given = dict(pairwise(arguments[2:]))
        model = Path(given["--repository"]) / given["--name"]
        (model / given["--version"]).mkdir(parents=True)
        self.made.append(f"{given['--name']}/{given['--version']}")
        return ""


def test_every_version_is_packaged(tmp_path: Path) -> None:
    packager = Packager()
    asyncio.run(models.package_models(packager, tmp_path, tmp_path / "models"))
    assert sorted(packager.made) == ["digits-int8/1", "digits/1", "digits/2", "digits/3"]


def test_what_is_there_already_is_not_packaged_again(tmp_path: Path) -> None:
    asyncio.run(models.package_models(Packager(), tmp_path, tmp_path / "models"))
    (tmp_path / "models" / "digits" / "2").rmdir()
    again = Packager()
    asyncio.run(models.package_models(again, tmp_path, tmp_path / "models"))
    assert again.made == ["digits/2"]
