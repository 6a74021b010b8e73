import io
from pathlib import Path

from rich.console import Console

from coalmine_demo.account import JudgedShare, OutputRow, Phase, TrafficTally
from coalmine_demo.claims import Check, DemoOutcome
from coalmine_demo.demo_report import (
    Steps,
    comparison_table,
    show_checks,
    show_failures,
    show_next,
    show_traces,
    traffic_table,
    verdict_table,
)
from coalmine_demo.place import Place
from tests.doubles.digits import exchange, heldout

OUTCOME = DemoOutcome(
    heldout=heldout(stable=(0, 1, 2, 3), canary=(0, 1, 2, 3), broken=(7, 7, 2, 7)),
    phases=(
        Phase(1, {"stable": 10_000}, {"broken"}),
        Phase(2, {"stable": 9_000, "canary": 1_000}, ()),
    ),
    exchanges=(
        exchange("stable", 1, latency_ms=3.0),
        exchange("stable", 1, label=5, latency_ms=9.0),
        exchange("canary", 2, revision=2),
        exchange("canary", 2, revision=2),
    ),
    counted={("stable", "broken"): TrafficTally(2, 2)},
    uncompared=0,
    refused={"broken"},
    judged=(),
    traced=4,
    exit_codes={"server": 0},
)


def piped() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def cells(shown: Console) -> list[list[str]]:
    """The rows below the headings, without their borders."""
    lines = text(shown).replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line][1:]


def test_the_traffic_table_says_what_each_variant_was_asked_and_got() -> None:
    shown = piped()
    shown.print(traffic_table(OUTCOME))
    stable, first, second = cells(shown)
    assert stable == ["stable 100%", "stable", "2.0", "2", "exact", "3.0 ms", "9.0 ms", "50.0%"]
    assert first[:5] == ["stable 90%, canary 10%", "stable", "1.8", "0", "not exact"]
    assert second[:5] == ["", "canary", "0.2", "2", "not exact"]


def test_the_comparison_table_says_how_often_an_output_differs() -> None:
    shown = piped()
    rows = [
        OutputRow("broken", "stable", "label", 200, 150),
        OutputRow("broken", "stable", "x", 0, 0),
    ]
    shown.print(comparison_table(rows, OUTCOME))
    assert cells(shown) == [
        ["broken", "stable", "label", "200", "150", "75.0%", "25.0%"],
        ["broken", "stable", "x", "0", "0", "-", "25.0%"],
    ]


def test_the_verdict_table_says_why_and_after_how_many_comparisons_one_failed() -> None:
    shown = piped()
    shown.print(
        verdict_table(
            [
                JudgedShare("broken", "stable", "fail", "100 % of [10] mismatch", 10),
                JudgedShare("int8", "stable", "inconclusive", "not decided yet", 1_234),
            ]
        )
    )
    assert cells(shown) == [
        ["broken", "stable", "FAIL", "10", "100 % of [10] mismatch"],
        ["int8", "stable", "INCONCLUSIVE", "", "not decided yet"],
    ]


def test_what_to_type_next_names_the_trace_and_the_mismatch_that_are_there() -> None:
    shown = piped()
    show_next(shown, Place(Path("/there")), "4bf92f35", "5f0c9a1b")
    told = text(shown).splitlines()
    assert "  coalmine traces /there/traces.jsonl --trace 4bf92f35" in told
    assert "  coalmine mismatches digits --export 5f0c9a1b --to /there" in told


def test_a_claim_is_one_line_with_a_mark_and_its_figures_however_narrow_the_place() -> None:
    shown = Console(file=io.StringIO(), width=20)
    show_checks(shown, [Check("it is so", True, "5 of 5"), Check("and [this]", False, "1 of 2")])
    assert text(shown).splitlines()[-2:] == ["  ✓ it is so: 5 of 5", "  ✗ and [this]: 1 of 2"]


def test_what_ended_the_demo_is_shown_as_it_was_said() -> None:
    shown = piped()
    show_failures(shown, ["server ended: cannot listen on [::1]:8001"])
    assert text(shown) == "✗ server ended: cannot listen on [::1]:8001\n"


def test_the_traces_are_told_with_their_paths_and_the_command_that_shows_them() -> None:
    shown = piped()
    show_traces(shown, Place(Path("/there")), "4bf92f3577b34da6a3ce929d0e0e4736")
    told = text(shown)
    assert "/there/traces.jsonl" in told
    assert "docker run --rm -p 16686:16686 jaegertracing/jaeger:2" in told
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in told


def test_what_was_exported_is_told_with_the_address_of_its_page() -> None:
    shown = piped()
    show_traces(shown, Place(Path("/there")), "4bf92f35", "http://localhost:16686/trace/")
    assert "http://localhost:16686/trace/4bf92f35\n" in text(shown)


def test_steps_and_commands_can_be_read_in_a_pipe() -> None:
    shown = piped()
    steps = Steps(shown)
    with steps.step("training [4] models"):
        pass
    steps.show_command("coalmine weights digits canary=10", "served by 1 of 1\n")
    first, *rest = text(shown).splitlines()
    assert first.startswith("• training [4] models (")
    assert rest == ["  $ coalmine weights digits canary=10", "    served by 1 of 1"]


def test_what_is_next_is_typed_for_the_host_that_the_demo_was_given() -> None:
    shown = piped()
    show_next(shown, Place(Path("/there"), "::1"), "4bf92f35", "5f0c9a1b")
    told = text(shown).splitlines()
    assert "  coalmine router control --config /there/router.yaml --listen [::1]:9002" in told
    assert "  coalmine status digits --candidate broken --control [::1]:9002; echo $?" in told
