import random
from typing import Any

from coalmine_router.backends.address import Address
from coalmine_router.backends.address_set import ADDRESSES_MAX, AddressSet
from coalmine_router.backends.address_state import AddressState
from coalmine_router.backends.backend_access import BackendAccess
from coalmine_router.backends.targets import Lookup
from coalmine_router.table import Backend

MODEL = Lookup("model", 80)


def no_channel(*_: object, **__: object) -> Any:
    return object()  # nobody calls


def addresses(*targets: str) -> AddressSet:
    return AddressSet(access(*targets), lambda: None)


def access(*targets: str) -> BackendAccess:
    return BackendAccess(Backend("blue", targets), no_channel)


def up(address: Address) -> None:
    address.set_state(AddressState().after_connecting().after_health_report(serving=True))


def names(of: AddressSet) -> list[str]:
    return [each.name for each in of.known]


def test_addresses_are_there_from_the_start_and_names_once_they_are_looked_up() -> None:
    blue = addresses("1.1.1.1:80", "model:80")
    assert names(blue) == ["1.1.1.1:80"]
    blue.note_lookup(MODEL, ["2.2.2.2", "3.3.3.3"])
    assert names(blue) == ["1.1.1.1:80", "2.2.2.2:80", "3.3.3.3:80"]


def test_an_address_that_stays_stays_the_same_object() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1", "2.2.2.2"])
    first = blue.wanted["1.1.1.1:80"]
    blue.note_lookup(MODEL, ["3.3.3.3", "1.1.1.1"])
    assert blue.wanted["1.1.1.1:80"] is first


def test_a_failed_lookup_keeps_what_is_known_and_is_kept_until_one_succeeds() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1"])
    blue.note_lookup(MODEL, "no answer")
    assert names(blue) == ["1.1.1.1:80"]
    assert blue.failed == {MODEL: "no answer"}
    blue.note_lookup(MODEL, ["1.1.1.1"])
    assert not blue.failed


def test_an_address_leaves_only_once_another_can_take_its_calls() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1"])
    old = blue.wanted["1.1.1.1:80"]
    up(old)
    blue.note_lookup(MODEL, ["2.2.2.2"])
    assert blue.remove_leavers() == []
    assert blue.available == (old,)
    up(blue.wanted["2.2.2.2:80"])
    assert blue.remove_leavers() == [old]
    assert names(blue) == ["2.2.2.2:80"]


def test_an_address_leaves_though_nobody_takes_its_place_once_that_is_certain() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1"])
    old = blue.wanted["1.1.1.1:80"]
    up(old)
    blue.note_lookup(MODEL, ["2.2.2.2"])
    blue.wanted["2.2.2.2:80"].set_state(AddressState().after_failure("refused"))
    assert blue.remove_leavers() == [old]


def test_an_address_that_gets_no_calls_anyway_leaves_at_once() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1"])
    old = blue.wanted["1.1.1.1:80"]
    blue.note_lookup(MODEL, ["2.2.2.2"])
    assert blue.remove_leavers() == [old]


def test_a_renewed_address_stays_until_its_own_successor_is_available() -> None:
    blue = addresses("1.1.1.1:80", "2.2.2.2:80")
    old = list(blue.wanted.values())
    for each in old:
        up(each)
    blue.reopen_all()
    new = list(blue.wanted.values())
    assert blue.remove_leavers() == []
    up(new[0])
    assert blue.remove_leavers() == [old[0]]
    new[1].set_state(AddressState().after_failure("a certificate that nobody trusts"))
    assert blue.remove_leavers() == []
    assert set(blue.available) == {new[0], old[1]}


def test_targets_that_are_others_keep_the_addresses_they_share() -> None:
    blue = addresses("1.1.1.1:80", "2.2.2.2:80")
    kept = blue.wanted["2.2.2.2:80"]
    blue.use_access(access("2.2.2.2:80", "3.3.3.3:80"))
    assert list(blue.wanted) == ["2.2.2.2:80", "3.3.3.3:80"]
    assert blue.wanted["2.2.2.2:80"] is kept


def test_what_a_lookup_says_that_is_no_longer_asked_for_is_nobodys() -> None:
    blue = addresses("model:80")
    blue.note_lookup(MODEL, ["1.1.1.1"])
    blue.use_access(access("2.2.2.2:80"))
    blue.remove_leavers()
    blue.note_lookup(MODEL, ["3.3.3.3"])
    assert names(blue) == ["2.2.2.2:80"]


def test_it_is_settled_once_each_name_and_address_is_found_out_about() -> None:
    blue = addresses("1.1.1.1:80", "model:80")
    assert not blue.is_settled
    blue.wanted["1.1.1.1:80"].set_state(AddressState().after_failure("refused"))
    assert not blue.is_settled
    blue.note_lookup(MODEL, "does not exist")
    assert blue.is_settled


def test_more_addresses_than_fit_are_counted_and_the_same_ones_stay() -> None:
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(300)]
    blue = addresses("model:80")
    blue.note_lookup(MODEL, many)
    before = set(names(blue))
    assert len(before) == ADDRESSES_MAX
    assert blue.left_out == 300 - ADDRESSES_MAX
    blue.note_lookup(MODEL, random.Random(1).sample(many, 300))
    assert set(names(blue)) == before
    blue.note_lookup(MODEL, many[:10])
    assert blue.left_out == 0


def test_of_more_addresses_than_fit_every_process_has_the_same_ones() -> None:
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(300)]
    proxy, control = addresses("model:80"), addresses("model:80")
    proxy.note_lookup(MODEL, random.Random(1).sample(many, 300))
    control.note_lookup(MODEL, random.Random(2).sample(many, 300))
    assert set(names(proxy)) == set(names(control))
    assert proxy.left_out == control.left_out == 300 - ADDRESSES_MAX
