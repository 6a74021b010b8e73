"""What the rules of verdicts come to, simulated through the real classes: `--help` says how.

Each line is one figure: how many runs got a wrong word, with the upper end of its 95 % interval, or
after how many observations the right one came. A run is looked at after each observation.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from coalmine_router.observer.evidence.betting.mean_bets import Limit, MeanBets
from coalmine_router.observer.evidence.betting.spells import SpellEvidence, SpellTerms
from coalmine_router.observer.evidence.betting.wealth import Wealth

Floats = NDArray[np.float64]
# Returns one observation of each run, and the size of its window.
Draws = Callable[[np.random.Generator, int, int], tuple[Floats, Floats | float]]

_NEEDED: Final = math.log(1.0 / 0.05)
_LIMIT: Final = Limit(0.01)
_SEED: Final = 20_261_129
_S: Final = 10**9


class Decided(NamedTuple):
    """Of each run: after how many observations each word came; infinite where never."""

    fail: Floats
    passed: Floats


# ---------------------------------------------------------------- means


def decide(draws: Draws, runs: int, looks: int, bets: MeanBets | None = None) -> Decided:
    """Return when runs were decided; each is looked at after each of `looks` observations."""
    rng, bets = np.random.default_rng(_SEED), bets or MeanBets.of(runs)
    decided = Decided(np.full(runs, np.inf), np.full(runs, np.inf))
    for number in range(1, looks + 1):
        bets.observe(_LIMIT, *draws(rng, number, runs))
        for when, log_e in zip(decided, (bets.log_fail(), bets.log_pass()), strict=True):
            when[(log_e >= _NEEDED) & np.isinf(when)] = number
    return decided


def independent(rate: float, batch: int = 1) -> Draws:
    """Return windows of one request of so many independent rows."""
    return lambda rng, _number, runs: (rng.binomial(batch, rate, runs) / batch, 1.0)


def correlated(rate: float, batch: int, correlation: float) -> Draws:
    """Return windows of one request whose rows hang together (beta-binomial)."""
    if correlation == 1.0:
        return independent(rate)
    rest = (1.0 - correlation) / correlation
    a, b = rate * rest, (1.0 - rate) * rest
    return lambda rng, _number, runs: (rng.binomial(batch, rng.beta(a, b, runs)) / batch, 1.0)


def seconds(rate: float, burst: int = 1, per_s: float = 50.0) -> Draws:
    """Return windows of 1 s, in which mismatches come in bursts of so many."""

    def draw(rng: np.random.Generator, _number: int, runs: int) -> tuple[Floats, Floats]:
        size = np.maximum(rng.poisson(per_s, runs), 1).astype(float)
        bad = rng.poisson(per_s * rate / burst, runs) * burst if burst > 1 else 0
        wrong = rng.binomial(size.astype(int), rate) if burst == 1 else np.minimum(bad, size)
        return wrong / size, size

    return draw


def crowds(every_s: float, share: float = 0.08, per_s: float = 50.0) -> Draws:
    """Return windows of 1 s; all that are wrong come in crowded ones, one in so many seconds."""
    crowd = share / (1.0 - share) * per_s * every_s

    def draw(rng: np.random.Generator, _number: int, runs: int) -> tuple[Floats, Floats]:
        is_crowded = rng.random(runs) < 1.0 / every_s
        size = np.where(is_crowded, crowd, np.maximum(rng.poisson(per_s, runs), 1.0))
        return is_crowded.astype(np.float64), size

    return draw


def healthy_before(windows: int, runs: int) -> MeanBets:
    """Return runs that each have seen so many windows without a mismatch."""
    one, all_ = MeanBets.of(1), MeanBets.of(runs)
    for _ in range(windows):
        one.observe(_LIMIT, 0.0)
    for source, target in ((one.above, all_.above), (one.below, all_.below)):
        _copy(source.wealth, target.wealth)
        target.largest = np.broadcast_to(source.largest, (runs,)).copy()
    return all_


def _copy(source: Wealth, target: Wealth) -> None:
    target.first = np.broadcast_to(source.first, target.first.shape).copy()
    target.later = np.broadcast_to(source.later, target.later.shape).copy()
    target.observed = source.observed


# ---------------------------------------------------------------- the split


class Side(NamedTuple):
    """Requests a second of one side, and the share of them that are events."""

    per_s: float
    rate: float


def events_of(
    rng: np.random.Generator, sides: tuple[Side, Side], until_s: float
) -> Iterator[tuple[int, bool]]:
    """Return the events of reference and candidate in order: when, and whether the candidate's."""
    times = [
        np.sort(rng.random(rng.poisson(side.per_s * side.rate * until_s)) * until_s)
        for side in sides
    ]
    at_s = np.concatenate(times)
    own = np.repeat([False, True], [len(each) for each in times])
    order = np.argsort(at_s)
    return zip((at_s[order] * _S).astype(int).tolist(), own[order].tolist(), strict=True)


def fail_of_split(
    rng: np.random.Generator, sides: tuple[Side, Side], until_s: float, spell_s: float = 30.0
) -> float:
    """Return after how many seconds the candidate FAILs by its errors alone."""
    weight = sides[1].per_s / (sides[0].per_s + sides[1].per_s)
    errors, terms = SpellEvidence(), SpellTerms(int(spell_s * _S))
    for at_ns, is_candidate in events_of(rng, sides, until_s):
        if errors.close_spell(at_ns, terms) and errors.log_fail() >= _NEEDED:
            return at_ns / _S
        errors.add(at_ns, weight, is_candidate=is_candidate)
    return math.inf


def split_runs(weight: float, rates: tuple[float, float], runs: int, until_s: float) -> Floats:
    """Return when runs at 100 requests/s FAIL, by the rates of reference and candidate."""
    rng = np.random.default_rng(_SEED)
    sides = (Side(100.0 * (1.0 - weight), rates[0]), Side(100.0 * weight, rates[1]))
    return np.array([fail_of_split(rng, sides, until_s) for _ in range(runs)])


# ---------------------------------------------------------------- the figures


def show(name: str, wanted: str, found: str, began_s: float) -> None:
    """Print one figure."""
    print(
        f"{name:58} {found:34} wanted {wanted:14} {time.monotonic() - began_s:5.0f} s", flush=True
    )


def wrong(when: Floats) -> str:
    """Return how many runs were decided, and the upper end of the interval for their share."""
    bad, runs = int(np.isfinite(when).sum()), len(when)
    upper = float(beta.ppf(0.975, bad + 1, runs - bad)) if bad < runs else 1.0
    return f"{bad} of {runs:,}, at most {100 * upper:.2g} %"


def median(when: Floats) -> str:
    """Return the median of when runs were decided."""
    return f"median {np.median(when):,.0f}"


def show_medians(runs: int) -> None:
    """Print how soon the engine decides."""
    for name, draws, looks, word, wanted in (
        ("5 % mismatch", independent(0.05), 600, "fail", "<= 111"),
        ("2 % mismatch", independent(0.02), 4_000, "fail", "<= 1,000"),
        ("10 % mismatch", independent(0.10), 200, "fail", ""),
        ("nothing mismatches", independent(0.0), 600, "passed", "<= 470"),
        ("batches of 32, 5 %", independent(0.05, 32), 100, "fail", "<= 12"),
        ("batches of 32, 2 %", independent(0.02, 32), 400, "fail", "<= 60"),
        ("windows of 1 s at 50/s, clean", seconds(0.0), 600, "passed", "<= 480"),
        ("windows of 1 s at 50/s, 2 %", seconds(0.02), 400, "fail", "<= 60"),
        ("windows of 1 s at 50/s, 5 %", seconds(0.05), 60, "fail", "<= 10"),
        ("windows of 1 s at 50/s, always wrong", seconds(1.0), 10, "fail", "<= 3"),
    ):
        began_s = time.monotonic()
        show(name, wanted, median(getattr(decide(draws, runs, looks), word)), began_s)


def show_breaks(runs: int) -> None:
    """Print how soon a model that breaks after long health is found."""
    for rate, looks, wanted in (
        (0.05, 3_000, "<= 700"),
        (0.10, 1_000, "<= 250"),
        (1.0, 30, "<= 12"),
    ):
        began_s = time.monotonic()
        found = decide(independent(rate), runs, looks, healthy_before(100_000, runs)).fail
        show(f"{rate:.0%} mismatch after 100,000 clean", wanted, median(found), began_s)


def show_wrong_words(runs: int, looks: int) -> None:
    """Print how many candidates at the limit, or beyond, get the wrong word."""
    for name, draws, words in (
        ("at the limit, independent", independent(0.01), ("fail", "passed")),
        ("at the limit, batches of 32", independent(0.01, 32), ("fail", "passed")),
        ("at the limit, batches, corr. 0.1", correlated(0.01, 32, 0.1), ("fail", "passed")),
        ("at the limit, bursts of 10", seconds(0.01, 10), ("fail", "passed")),
        ("at the limit, bursts of 50", seconds(0.01, 50), ("fail", "passed")),
        ("0.2 %, bursts of 10", seconds(0.002, 10), ("fail",)),
        ("2 %, bursts of 10", seconds(0.02, 10), ("passed",)),
        ("crowded once in 20 s, 8 %", crowds(20.0), ("passed",)),
        ("crowded once in a minute, 8 %", crowds(60.0), ("passed",)),
    ):
        began_s = time.monotonic()
        decided = decide(draws, runs, looks)
        for word in words:
            show(f"{name}: {word}", "<= 5 %", wrong(getattr(decided, word)), began_s)


def show_split(runs: int) -> None:
    """Print what the split's rule comes to, at 100 requests/s."""
    for weight, rate in ((0.1, 0.01), (0.01, 0.01), (0.1, 0.002), (0.1, 0.05)):
        began_s = time.monotonic()
        found = split_runs(weight, (rate, rate), runs, 7_200.0)
        show(
            f"both sides err at {rate:.1%}, weight {weight:.0%}: FAIL",
            "<= 5 %",
            wrong(found),
            began_s,
        )
    for weight, rates, wanted in (
        (0.1, (0.01, 0.02), "<= 450 s"),
        (0.01, (0.01, 0.02), "<= 1,400 s"),
        (0.1, (0.0, 0.05), "<= 120 s"),
    ):
        began_s = time.monotonic()
        found = split_runs(weight, rates, min(runs, 400), 7_200.0)
        name = f"{rates[1]:.0%} errors beside {rates[0]:.0%}, weight {weight:.0%}"
        show(name, wanted, f"{median(found)} s", began_s)


def main() -> None:
    """Print the figures that were asked for."""
    parts = {"medians", "breaks", "wrong", "split"}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(sorted(parts))}; default: all")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--looks", type=int, default=20_000)
    asked = parser.parse_args()
    if unknown := set(asked.parts) - parts:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    wanted = set(asked.parts) or parts
    if "medians" in wanted:
        show_medians(asked.runs)
    if "breaks" in wanted:
        show_breaks(asked.runs)
    if "split" in wanted:
        show_split(asked.runs)
    if "wrong" in wanted:
        show_wrong_words(asked.runs, asked.looks)


if __name__ == "__main__":
    main()
