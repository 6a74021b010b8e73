"""Which answers of a request are compared with which. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from coalmine_router.codes import code_name
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.observed_request import ObservedRequest, Role
from coalmine_router.table import STABLE

# The place of the answer that the caller got.
_GIVEN = 0


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """Two answers by their places: 0 is the one that the caller got, copies follow."""

    role: Role
    reference: str
    candidate: str
    places: tuple[int, int]
    # Whether the reference's answer is the one that noise was made beside.
    has_noise: bool = False


def answers_of(observed: ObservedRequest) -> tuple[ComparedAnswer, ...]:
    """Return the answer that the caller got, then those of the copies."""
    report = observed.report
    given = ComparedAnswer(observed.response, code_name(report.status_code), report.status_message)
    return given, *(call.answer for call in observed.calls)


def addresses_of(observed: ObservedRequest) -> tuple[str, ...]:
    """Return who gave each of the answers, host:port; "" where a report doesn't say."""
    attempts = observed.report.attempts
    given = attempts[-1].address if attempts else ""
    return given, *(call.address for call in observed.calls)


def pairs_of(observed: ObservedRequest) -> list[PlannedPair]:
    """Return what is compared; noise, if there is any, comes first.

    A shadow is compared with who answered. An audit is stable against the other side, whichever of
    them the caller got. Noise is stable's answer against its second one.
    """
    found = list(_pairs(observed))
    has_noise = any(pair.role == "noise" for pair in found)
    found.sort(key=lambda pair: pair.role != "noise")
    return [_beside_noise(pair) if has_noise else pair for pair in found]


def _pairs(observed: ObservedRequest) -> Iterator[PlannedPair]:
    answered = observed.report.variant
    for place, call in enumerate(observed.calls, 1):
        role, variant = call.copy.role, call.copy.variant
        if role == "audit" and variant == STABLE:
            yield PlannedPair(role, STABLE, answered, (place, _GIVEN))
        else:
            yield PlannedPair(role, answered, variant, (_GIVEN, place))


def _beside_noise(pair: PlannedPair) -> PlannedPair:
    is_beside = pair.role != "noise" and pair.places[0] == _GIVEN
    return PlannedPair(pair.role, pair.reference, pair.candidate, pair.places, has_noise=is_beside)
