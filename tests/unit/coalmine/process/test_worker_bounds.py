import pytest

from coalmine.process.worker_bounds import NO_BOUNDS, WorkerBounds


@pytest.mark.parametrize(
    ("bounds", "age_s", "mib", "why"),
    [
        (NO_BOUNDS, 1e9, 1e9, ""),
        (WorkerBounds(age_s=60), 60, 1e9, ""),
        (WorkerBounds(age_s=60), 61, 0, "it is older than 60 s"),
        (WorkerBounds(resident_mib=500), 1e9, 500, ""),
        (WorkerBounds(resident_mib=500), 0, 512, "it holds 512 MiB of memory, over 500"),
        (WorkerBounds(60, 500), 59, 499, ""),
        (WorkerBounds(60, 500), 59, 501, "it holds 501 MiB of memory, over 500"),
    ],
)
def test_a_worker_is_replaced_for_what_is_bounded_alone(
    bounds: WorkerBounds, age_s: float, mib: float, why: str
) -> None:
    assert bounds.why_over(age_s, mib) == why


def test_either_is_a_bound() -> None:
    assert not NO_BOUNDS.has_any
    assert WorkerBounds(age_s=1).has_any
    assert WorkerBounds(resident_mib=1).has_any
