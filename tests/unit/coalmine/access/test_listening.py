"""Listening where others can hear is said, with what to do."""

import pytest

from coalmine.access.listening import OPTIONS_REMEDY, plaintext_advice


@pytest.mark.parametrize("address", ["127.0.0.1:8001", "[::1]:8001", "localhost:8001"])
def test_loopback_is_nobody_elses(address: str) -> None:
    assert plaintext_advice(address, tls=False, tokens=True, remedy=OPTIONS_REMEDY) == ""


@pytest.mark.parametrize("address", ["0.0.0.0:8001", "[::]:8001", "10.0.0.7:8001", "host:8001"])
def test_listening_to_others_in_plaintext_is_said_with_what_to_do(address: str) -> None:
    assert plaintext_advice(address, tls=False, tokens=False, remedy=OPTIONS_REMEDY) == (
        "anybody may call, and calls cross the network unencrypted: give --tls-cert and --tls-key"
    )
    told = plaintext_advice(address, tls=False, tokens=True, remedy="do this")
    assert told == "calls and their tokens cross the network unencrypted: do this"
    assert plaintext_advice(address, tls=True, tokens=False, remedy=OPTIONS_REMEDY) == ""
