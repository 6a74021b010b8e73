"""The files in deploy/ fit each other, the program and the demo; nothing is built here."""

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from coalmine_demo import demo_report, heldout, models, place
from coalmine_router.config.file import read_config

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "deploy" / "compose" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))


def dockerfile_of(service: str) -> str:
    build = SERVICES[service]["build"]
    context = COMPOSE_FILE.parent / str(build["context"])
    return (context / str(build["dockerfile"])).read_text()


def instructions(text: str) -> list[str]:
    """The instructions of a Dockerfile's last stage, continued lines joined."""
    joined = text.replace("\\\n", " ")
    last = joined[joined.rindex("\nFROM ") :]
    return [line for line in last.splitlines() if line and not line.startswith("#")]


def one(text: str, instruction: str) -> str:
    (found,) = [each for each in instructions(text) if each.startswith(f"{instruction} ")]
    return found


# ---------------------------------------------------------------- compose


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_built_from_files_that_exist(service: str) -> None:
    build = SERVICES[service]["build"]
    assert (COMPOSE_FILE.parent / build["context"]).resolve() == ROOT
    text = dockerfile_of(service)
    assert set(build.get("args", {})) <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))


def test_services_that_share_an_image_share_how_it_is_built() -> None:
    built: dict[str, Any] = {}
    for service in OURS:
        image = SERVICES[service]["image"]
        assert built.setdefault(image, SERVICES[service]["build"]) == SERVICES[service]["build"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_waits_only_for_what_can_happen(service: str) -> None:
    for other, wait in SERVICES[service].get("depends_on", {}).items():
        match wait["condition"]:
            case "service_healthy":
                assert "HEALTHCHECK" in dockerfile_of(other)
                assert "healthcheck" not in SERVICES[other]
            case "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no"
            case condition:
                assert condition == "service_started"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_ports_are_open_on_this_machine_only(service: str) -> None:
    for port in SERVICES[service].get("ports", ()):
        assert port.startswith("127.0.0.1:")


def test_the_ports_are_those_of_the_contract() -> None:
    opened = {
        name: {int(port.split(":")[2]) for port in service.get("ports", ())}
        for name, service in SERVICES.items()
    }
    assert opened == {
        "server": {8001, 8002},
        "router": {9001, 9002, 9003},
        "jaeger": {16686},
        "models": set(),
        "traffic": set(),
    }


@pytest.mark.parametrize("service", OURS)
def test_our_containers_can_write_to_their_volume_and_to_tmp_only(service: str) -> None:
    ours = SERVICES[service]
    assert ours["read_only"] is True
    assert ours["tmpfs"] == ["/tmp"]
    assert ours["cap_drop"] == ["ALL"]
    named = {volume.split(":")[0] for volume in ours["volumes"]} - {"./router.yaml"}
    assert named <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", OURS)
def test_spans_go_to_jaegers_otlp_port(service: str) -> None:
    environment = SERVICES[service]["environment"]
    assert environment == {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317"}


def test_jaeger_is_the_pinned_image_that_the_demo_names() -> None:
    assert SERVICES["jaeger"]["image"] == demo_report.JAEGER
    assert re.fullmatch(r"jaegertracing/jaeger:2\.\d+\.\d+", demo_report.JAEGER)


@pytest.mark.parametrize("service", ["models", "traffic"])
def test_a_module_that_compose_starts_takes_the_arguments_it_is_given(
    service: str,
) -> None:
    python, flag, module = SERVICES[service]["entrypoint"]
    assert (python, flag) == ("python", "-m")
    assert import_module(module).parse_arguments(SERVICES[service]["command"])


def test_what_models_writes_is_where_server_and_traffic_look() -> None:
    training, repository = SERVICES["models"]["command"]
    assert f"--model-repository={repository}" in SERVICES["server"]["command"]
    assert f"--data={training}" in SERVICES["traffic"]["command"]
    for service in ("models", "server", "traffic"):
        volume, mounted, *_ = SERVICES[service]["volumes"][0].split(":")
        assert volume == "models"
        assert training.startswith(mounted)
        assert repository.startswith(mounted)


# ---------------------------------------------------------------- the router's files


def test_the_router_of_compose_listens_where_compose_opens_ports() -> None:
    config = read_config(COMPOSE_FILE.parent / "router.yaml")
    listens = (config.listen, config.control.listen, config.http)
    assert listens == ("0.0.0.0:9001", "0.0.0.0:9002", "0.0.0.0:9003")
    (target,) = config.backends["local"].targets
    assert target == "dns:///server:8001"
    state = str(config.control.state)
    assert any(volume.endswith(f":{state}") for volume in SERVICES["router"]["volumes"])


def test_compose_the_example_and_the_demo_have_the_same_route() -> None:
    demo = yaml.safe_load(place.router_template())
    compose = yaml.safe_load((COMPOSE_FILE.parent / "router.yaml").read_text())
    # The demo foretells each comparison, which audits would upset.
    assert compose["routes"] == [{**route, "audit": 10} for route in demo["routes"]]
    assert (ROOT / "examples" / "digits" / "router.yaml").read_text() == place.router_template()


def test_the_demos_router_file_is_one_the_router_takes(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    config_text = place.router_config("127.0.0.1:4711", tmp_path / "state", "127.0.0.1:0")
    file.write_text(config_text)
    config = read_config(file)
    assert config.backends["local"].targets == ("127.0.0.1:4711",)
    assert config.control.state == tmp_path / "state"
    (route,) = config.table().routes
    assert {each.name for each in route.variants} == set(heldout.VARIANTS)
    places = {(each.model or route.match.model, each.version) for each in route.variants}
    assert places == {(entry.model, entry.version) for entry in models.ENTRIES}


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_an_image_runs_as_nobody_special_and_stops_when_asked(file: Path) -> None:
    text = file.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.11-slim"] * 2
    assert one(text, "USER") == "USER coalmine"
    assert one(text, "STOPSIGNAL") == "STOPSIGNAL SIGTERM"
    for instruction in ("ENTRYPOINT", "CMD"):
        assert one(text, instruction).startswith(f'{instruction} ["')
    assert re.search(r'CMD \["python", "-c", .*/readyz', one(text, "HEALTHCHECK"))


@pytest.mark.parametrize(("name", "ports"), [("server", "8001 8002"), ("router", "9001 9002 9003")])
def test_an_image_opens_the_ports_of_the_contract(name: str, ports: str) -> None:
    text = (ROOT / "deploy" / "docker" / f"{name}.Dockerfile").read_text()
    assert one(text, "EXPOSE") == f"EXPOSE {ports}"
    http = ports.rsplit(maxsplit=1)[-1]
    assert f"http://127.0.0.1:{http}/readyz" in text


def test_only_the_server_image_has_torch_and_from_the_index_without_cuda() -> None:
    server, router = dockerfile_of("server"), dockerfile_of("router")
    assert "--index-url https://download.pytorch.org/whl/cpu" in server
    assert "torch==" not in router


def test_the_build_sees_what_the_wheel_is_made_of_and_nothing_else() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shown = {line[1:] for line in kept if line.startswith("!")}
    assert "*" in kept
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= shown
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {"protos", "server", "router", "clients/coalmine_client"} <= shown
    assert all(shown & {each, each.partition("/")[0]} for each in packages)
    assert all((ROOT / name).exists() for name in shown)
