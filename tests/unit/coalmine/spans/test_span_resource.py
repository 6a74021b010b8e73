"""What all spans of a process say."""

import os
import socket
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

import pytest

from coalmine.spans.span_resource import resource


def test_spans_say_whose_they_are_of_which_version_and_on_which_host() -> None:
    said = resource("coalmine-router", {}).attributes
    assert said["service.name"] == "coalmine-router"
    assert said["service.version"] == version("coalmine")
    assert said["host.name"] == socket.gethostname()
    assert said["process.pid"] == os.getpid()


def test_an_older_jaeger_is_told_the_host_by_its_address() -> None:
    said = resource("coalmine-router", {}).attributes["ip"]
    assert ip_address(str(said))
    assert resource("coalmine-server", {}).attributes["ip"] == said


def test_a_machine_that_has_an_id_says_it() -> None:
    files = [Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")]
    ids = [file.read_text().strip() for file in files if file.exists()]
    said = resource("coalmine-router", {}).attributes.get("host.id")
    assert said == next((each for each in ids if each), None)


def test_what_variables_say_comes_before_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "service.name=mine,service.version=7,host.name=pod-1,process.pid=1,team=a%20b"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", given)
    said = resource("coalmine-router", {}).attributes
    assert (said["service.name"], said["service.version"]) == ("mine", "7")
    assert (said["host.name"], said["process.pid"], said["team"]) == ("pod-1", "1", "a b")


def test_the_variable_for_the_name_comes_before_the_one_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")
    assert resource("r", {"OTEL_SERVICE_NAME": "mine"}).attributes["service.name"] == "mine"


def test_detectors_that_are_named_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "os.type" not in resource("r", {}).attributes
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "os")
    said = resource("r", {}).attributes
    assert (said["os.type"], said["service.name"]) == ("linux", "r")
