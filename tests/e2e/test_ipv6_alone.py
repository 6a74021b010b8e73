"""Servers and routers on a machine that has no IPv4 address at all, its loopback's neither."""

import subprocess
from pathlib import Path

import pytest

from tests.doubles.processes import Started, started
from tests.doubles.server_process import written

ALONE = """
ip link set lo up && ip addr del 127.0.0.1/8 dev lo &&
mount --bind {hosts} /etc/hosts && exec "$@"
"""
ROUTER = """
listen: "[::1]:0"
control: {{listen: "{control}", state: {state}}}
http: "{http}"
backends: {{one: {{targets: ["[::1]:9"]}}}}
routes: [{{name: m, match: {{model: m}}, variants: {{stable: {{backend: one}}}}}}]
"""


@pytest.fixture
def alone(tmp_path: Path) -> tuple[str, ...]:
    """Return what runs a command on such a machine, whose name for itself is localhost."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    unshared = ("unshare", "--user", "--map-root-user", "--net", "--mount")
    return (*unshared, "sh", "-c", ALONE.format(hosts=hosts), "sh")


def page(running: Started, path: str) -> str:
    """Return what it answers over HTTP to a caller on that machine."""
    address = running.address("http").replace("[::]", "[::1]").replace("localhost", "[::1]")
    code = f"import urllib.request as r; print(r.urlopen('http://{address}{path}').read().decode())"
    inside = ("nsenter", "--target", str(running.pid), "--user", "--preserve-credentials", "--net")
    done = subprocess.run(
        [*inside, "python3", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("host", ["[::1]", "[::]", "localhost"])
def test_a_router_serves_and_sees_its_own_processes(
    host: str, tmp_path: Path, alone: tuple[str, ...]
) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(
        ROUTER.format(control=f"{host}:0", http=f"{host}:0", state=tmp_path / "state"),
    )
    with started("router", "run", "--config", file, folder=tmp_path, inside=alone) as running:
        assert page(running, "/readyz").strip() == "ready"
        figures = page(running, "/metrics")
        assert 'coalmine_router_process_up{process="control"} 1.0' in figures
        assert 'coalmine_router_process_up{process="proxy-0"} 1.0' in figures
        assert "coalmine_router_processes_not_scraped_total 0.0" in figures


def test_a_server_with_workers_serves_and_sees_them(tmp_path: Path, alone: tuple[str, ...]) -> None:
    models = written("tests.models", tmp_path / "models")
    words = ("server", "run", "--model-repository", models, "--workers", "2")
    where = ("--listen", "[::1]:0", "--http", "[::1]:0")
    with started(*words, *where, folder=tmp_path, inside=alone) as running:
        assert page(running, "/readyz").strip() == "ready"
        assert 'worker="1"' in page(running, "/metrics")
