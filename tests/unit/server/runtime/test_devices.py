import pytest

from coalmine.errors import StartError
from coalmine_server.runtime.devices import device_of


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [
        ("auto", 0, ["cpu", "cpu", "cpu"]),
        ("auto", 1, ["cuda:0", "cuda:0", "cuda:0"]),
        ("auto", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cpu", 2, ["cpu", "cpu", "cpu"]),
        ("cuda", 2, ["cuda:0", "cuda:0", "cuda:0"]),
        ("cuda:1", 2, ["cuda:1", "cuda:1", "cuda:1"]),
    ],
)
def test_instances_take_devices_in_turn_only_where_none_is_asked_for(
    asked: str, count: int, expected: list[str]
) -> None:
    assert [device_of(asked, instance=n, cuda_count=count) for n in range(3)] == expected


@pytest.mark.parametrize(
    ("asked", "count", "there"),
    [("cuda", 0, "none"), ("cuda:0", 0, "none"), ("cuda:2", 2, "only 2"), ("cuda:10", 1, "only 1")],
)
def test_a_device_that_is_not_there_is_refused_in_one_line(
    asked: str, count: int, there: str
) -> None:
    with pytest.raises(StartError) as refusal:
        device_of(asked, instance=0, cuda_count=count)
    assert str(refusal.value) == (
        f"device '{asked}' is not there: of CUDA devices there are {there}"
    )
