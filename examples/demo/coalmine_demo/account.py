"""Figures of the traffic: shares, percentiles, accuracy, and comparisons. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coalmine_demo.heldout import HeldOut, LocalAnswers

OK: Final = "OK"
ALL_BP: Final = 10_000

# Batches of different sizes add up in different orders.
LOGITS_ATOL: Final = 1e-3


@dataclass(frozen=True, slots=True)
class TrafficExchange:
    """One request and its answer. `image` is the row of the held-out images.

    `variant` and `revision` are those of the trailing metadata. `logits` FP32 [10] is empty, and
    `label` -1, where `status` (a name of grpc.StatusCode) isn't OK.
    """

    image: int
    status: str
    variant: str
    revision: int
    latency_ms: float
    logits: NDArray[Any]
    label: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A revision of the route table: who answers, and who gets a copy of every request."""

    revision: int
    weights_bp: Mapping[str, int]
    shadows: Collection[str]


# ---------------------------------------------------------------- shares


@dataclass(frozen=True, slots=True)
class Share:
    """How many requests a variant should have had, and had."""

    variant: str
    weight_bp: int
    asked: float
    got: int
    is_exact: bool


def shares_of(exchanges: Sequence[TrafficExchange], weights_bp: Mapping[str, int]) -> list[Share]:
    """Return each weighted variant's share of `exchanges`, all of one revision.

    Exact means as near as whole requests allow. Within a permuted block each share is exact, so
    only the last, unfinished block leaves room.
    """
    got = Counter(each.variant for each in exchanges)
    total = len(exchanges)
    return [
        Share(
            variant,
            weight,
            asked=total * weight / ALL_BP,
            got=got[variant],
            is_exact=got[variant] in _possible_counts(total, variant, weights_bp),
        )
        for variant, weight in weights_bp.items()
    ]


def _possible_counts(total: int, variant: str, weights_bp: Mapping[str, int]) -> range:
    """Return the counts that permuted blocks can give `variant` in `total` requests."""
    block = ALL_BP // math.gcd(*weights_bp.values())
    slots = weights_bp[variant] * block // ALL_BP
    full, rest = divmod(total, block)
    least = full * slots + max(0, rest - (block - slots))
    most = full * slots + min(rest, slots)
    return range(least, most + 1)


# ---------------------------------------------------------------- answers


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def accuracy(exchanges: Iterable[TrafficExchange], labels: NDArray[Any]) -> float:
    """Return the share of answers that name the digit in the image; NaN of nothing."""
    hits = [each.label == labels[each.image] for each in exchanges if each.status == OK]
    return sum(hits) / len(hits) if hits else math.nan


def agrees(exchange: TrafficExchange, answers: LocalAnswers) -> bool:
    """Return whether the answer is the one that `answers` has for the image."""
    return (
        exchange.status == OK
        and exchange.label == answers.label[exchange.image]
        and np.allclose(exchange.logits, answers.logits[exchange.image], rtol=0, atol=LOGITS_ATOL)
    )


def misattributed(exchanges: Iterable[TrafficExchange], heldout: HeldOut) -> list[TrafficExchange]:
    """Return the answers that are not those of the variant named in their metadata."""
    return [
        each
        for each in exchanges
        if each.status == OK
        and not (each.variant in heldout.answers and agrees(each, heldout.answers[each.variant]))
    ]


# ---------------------------------------------------------------- comparisons


@dataclass(frozen=True, slots=True)
class TrafficTally:
    """Comparisons, and how many of them have another label."""

    compared: int
    other_label: int

    @property
    def rate(self) -> float:
        """The share of another label; NaN of nothing."""
        return self.other_label / self.compared if self.compared else math.nan


Pair = tuple[str, str]


def expected_tallies(
    exchanges: Iterable[TrafficExchange], phases: Iterable[Phase], heldout: HeldOut
) -> dict[Pair, TrafficTally]:
    """Return, by (reference, candidate), what the router must find in `exchanges`.

    The candidate's answers come from `heldout`.
    """
    shadows = {phase.revision: phase.shadows for phase in phases}
    compared: Counter[Pair] = Counter()
    other: Counter[Pair] = Counter()
    for each in exchanges:
        for candidate in shadows.get(each.revision, ()) if each.status == OK else ():
            pair = each.variant, candidate
            compared[pair] += 1
            other[pair] += int(heldout.answers[candidate].label[each.image]) != each.label
    return {pair: TrafficTally(count, other[pair]) for pair, count in compared.items()}


@dataclass(frozen=True, slots=True)
class JudgedShare:
    """The router's verdict on a candidate, and the number of requests that decided it."""

    candidate: str
    reference: str
    verdict: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class OutputRow:
    """How often one output of a candidate differed from the reference's."""

    candidate: str
    reference: str
    output: str
    compared: int
    mismatch: int
