"""A router that starts while its disk takes nothing: it serves as it did, says so, and heals."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from tests.doubles.inference_server import FakeInference, serving, sums
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import caller_of, configuration, control_of, router, set_weights
from tests.doubles.small_disk import SmallDisk, small_disk
from tests.doubles.waiting import until

Harm = Callable[[SmallDisk], None]


@pytest.fixture
def backend() -> Iterator[str]:
    with serving(FakeInference(sums)) as address:
        yield address


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "state") as disk:
        yield disk


@pytest.fixture
def file(tmp_path: Path, backend: str) -> Path:
    return configuration(tmp_path, backend)


def promote(file: Path, disk: SmallDisk) -> int:
    """Give all traffic to the canary, which the file knows nothing of; return the revision."""
    with router(file, inside=disk.inside) as running, control_of(running) as control:
        return set_weights(control, canary=10_000).revision


def status(control: RouteControlStub) -> pb.RouteStatus:
    return control.GetRoute(pb.GetRouteRequest(route="digits"), timeout=10)


def takes_changes(control: RouteControlStub) -> bool:
    try:
        set_weights(control, canary=5_000)
    except grpc.RpcError:
        return False
    return True


def usable(running: Started) -> str:
    found = re.search(r"^coalmine_router_state_usable (\S+)$", running.page(), re.MULTILINE)
    return found.group(1) if found else ""


def fill(disk: SmallDisk) -> None:
    disk.fill()


def make_read_only(disk: SmallDisk) -> None:
    disk.remount("ro")


def mend(disk: SmallDisk) -> None:
    disk.remount("rw")
    (disk.here / "ballast").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("harm", "why"), [(fill, "full"), (make_read_only, "read-?only|unable to open")]
)
def test_without_a_disk_the_promoted_canary_is_served_and_no_change_is_taken_until_it_is_back(
    harm: Harm, why: str, disk: SmallDisk, file: Path
) -> None:
    revision = promote(file, disk)
    harm(disk)
    with (
        router(file, inside=disk.inside) as running,
        caller_of(running) as caller,
        control_of(running) as control,
    ):
        assert caller.variants(100) == {"canary": 100}
        with pytest.raises(grpc.RpcError, match=why):
            set_weights(control, canary=0)
        found = status(control)
        assert found.revision == revision
        assert re.search(f"control.db: takes no changes: .*({why})", found.troubles[0])
        assert f"the last table that was saved, revision {revision}" in found.troubles[0]
        assert float(usable(running)) == 0
        shown = ran("status", "digits", "--control", running.address("control"), folder=file.parent)
        assert "control.db: takes no changes" in shown.stdout
        assert shown.returncode not in {0, 1}, "it is no failure to ask, and not well either"
        log = running.log.read_text()
        mend(disk)
        until(lambda: takes_changes(control), 20)
        assert caller.variants(100) == {"stable": 50, "canary": 50}
        until(lambda: all("spans lost" in each for each in status(control).troubles), 20)
        assert float(usable(running)) == 1
    assert log.count('"state_unusable"') == 1
    assert running.log.read_text().count('"state_usable_again"') == 1


def test_a_first_start_on_a_read_only_disk_serves_by_the_file_and_says_that_no_table_was_saved(
    disk: SmallDisk, file: Path
) -> None:
    below = str(disk.place / "below")
    file.write_text(file.read_text().replace(str(disk.place), below))
    make_read_only(disk)
    with (
        router(file, inside=disk.inside) as running,
        caller_of(running) as caller,
        control_of(running) as control,
    ):
        assert caller.variants(20) == {"stable": 20}
        until(lambda: status(control).proxies[0].revision == 1, 20)
        assert status(control).troubles[0].endswith("the configuration file: no table was saved")
        mend(disk)
        until(lambda: takes_changes(control), 20)
        assert caller.variants(100) == {"stable": 50, "canary": 50}
