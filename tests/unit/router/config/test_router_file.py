"""router.yaml: what it may say, and the one line that names the place where it is wrong."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import StartError
from coalmine_router.config.compare_section import ExactRule, IgnoreRule
from coalmine_router.config.file import RouterConfig, read_config
from coalmine_router.table import Backend, Limits, Match, Shadow, Sticky, Variant

WHOLE = """
listen: 0.0.0.0:9001
control: {listen: 127.0.0.1:9002, state: ./state}
http: 127.0.0.1:9003
backends:
  blue:  {targets: ["dns:///server-blue:8001"]}
  green: {targets: ["10.0.0.7:8001", "10.0.0.8:8001"]}
routes:
  - name: digits
    match: {model: digits}
    variants:
      stable: {backend: blue,  version: "1"}
      canary: {backend: blue,  version: "2"}
      int8:   {backend: green, model: digits-int8}
    weights: {stable: 99.5, canary: 0.5}
    shadows: {int8: 100, canary: 0}
    sticky: {metadata: x-user-id}
    timeout: 2s
    compare:
      default: {rule: close}
      outputs:
        logits: {rule: close, rtol: 1.0e-3, atol: 1.0e-4}
        label: {rule: exact}
        timestamp: {rule: ignore}
    gates: {slow: {over: 200ms}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "router.yaml"
    path.write_text(text)
    return path


def changed(**parts: Any) -> str:
    """Return the file with these parts of its route changed."""
    content = yaml.safe_load(WHOLE)
    content["routes"][0].update(parts)
    return yaml.safe_dump(content)


def refusal(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(StartError) as caught:
        read_config(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


# ---------------------------------------------------------------- what it may say


def test_a_whole_file_becomes_a_table_of_revision_0(tmp_path: Path) -> None:
    table = read_config(written(tmp_path, WHOLE)).table()

    assert table.revision == 0
    assert table.backends == (
        Backend("blue", ("dns:///server-blue:8001",)),
        Backend("green", ("10.0.0.7:8001", "10.0.0.8:8001")),
    )
    digits = table.route("digits")
    assert digits.variants == (
        Variant("stable", "blue", version="1", weight_bp=9_950),
        Variant("canary", "blue", version="2", weight_bp=50),
        Variant("int8", "green", model="digits-int8"),
    )
    assert digits.shadows == (Shadow("int8", 10_000),)
    assert (digits.sticky, digits.timeout_ns) == (Sticky("x-user-id"), 2 * 10**9)
    assert (digits.match, digits.fallback, digits.limits) == (Match("digits"), False, Limits())


def test_rules_are_chosen_by_their_name(tmp_path: Path) -> None:
    outputs = read_config(written(tmp_path, WHOLE)).routes[0].compare.outputs

    assert outputs["logits"].model_dump() == {"rule": "close", "rtol": 1e-3, "atol": 1e-4}
    assert isinstance(outputs["label"], ExactRule)
    assert isinstance(outputs["timestamp"], IgnoreRule)


def test_a_short_file_has_the_documented_defaults(tmp_path: Path) -> None:
    text = """
backends: {blue: {targets: ["localhost:8001"]}}
routes: [{name: digits, match: {model: digits}, variants: {stable: {backend: blue}}}]
"""
    config = read_config(written(tmp_path, text))

    assert (config.listen, config.control.listen, config.http) == (
        "127.0.0.1:9001",
        "127.0.0.1:9002",
        "127.0.0.1:9003",
    )
    assert config.control.state == Path("./state")
    assert config.table().route("digits").weights_bp == {"stable": 10_000}
    assert config.table().route("digits").pinning


@pytest.mark.parametrize(
    ("written_as", "weight_bp"),
    [
        (0, 0),
        (100, 10_000),
        (12.5, 1_250),
        (0.01, 1),
        (0.07, 7),
        (99.99, 9_999),
        ("25%", 2_500),
        ("12.50%", 1_250),
        ("1", 100),
        (" 5% ", 500),
    ],
)
def test_a_percentage_is_a_number_or_text_with_its_sign(written_as: Any, weight_bp: int) -> None:
    shadows = {"int8": written_as}
    config = RouterConfig.model_validate(yaml.safe_load(changed(shadows=shadows)))

    assert config.routes[0].shadows["int8"].share == weight_bp


@given(st.integers(0, 10_000))
def test_every_hundredth_of_a_percent_is_read_exactly(weight_bp: int) -> None:
    share = float(Decimal(weight_bp) / 100)
    content = yaml.safe_load(changed(weights={"stable": 100 - share, "canary": share}))
    content["routes"][0]["weights"]["stable"] = str(Decimal(10_000 - weight_bp) / 100)
    config = RouterConfig.model_validate(content)

    assert config.routes[0].weights == {"stable": 10_000 - weight_bp, "canary": weight_bp}


# ---------------------------------------------------------------- what is refused, and where


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"weights": {"stable": 100, "canary": 0.001}}, "routes.0.weights.canary: expected a perc"),
        ({"weights": {"stable": 100.01}}, "routes.0.weights.stable: expected a percentage"),
        ({"weights": {"stable": True}}, "routes.0.weights.stable: expected a percentage"),
        ({"weights": {"stable": float("nan")}}, "routes.0.weights.stable: expected a percentage"),
        ({"weights": {"stable": float("inf")}}, "routes.0.weights.stable: expected a percentage"),
        ({"weights": {"stable": "1e999999999"}}, "routes.0.weights.stable: expected a percentage"),
        ({"shadows": {"int8": "half"}}, "routes.0.shadows.int8: expected a percentage"),
        ({"timeout": "2"}, "routes.0.timeout: expected a duration such as"),
        ({"timeout": 2}, "routes.0.timeout: expected a duration such as"),
        ({"timeout": "0s"}, "routes.0.timeout: input should be greater than 0s, got '0s'"),
        ({"timeout": "25h"}, "routes.0.timeout: input should be less than or equal"),
        ({"timeout": "9999999999999999h"}, "routes.0.timeout: input should be less than or equal"),
        ({"audit": 101}, "routes.0.audit: expected a percentage from 0 to 100"),
        ({"audit": {"share": 101}}, "routes.0.audit.share: expected a percentage from 0 to 100"),
        ({"noise": None}, "routes.0.noise: expected a percentage"),
        ({"noise": {"share": 1, "max_rps": 0}}, "routes.0.noise.max_rps: input should be greater"),
        ({"stateful": True}, "route 'digits' is stateful: its requests are never copied"),
        ({"copy_methods": ["Do"]}, "route 'digits': copy_methods are another service's"),
        ({"gates": {"max_mismatch_rate": 0}}, "routes.0.gates.max_mismatch_rate: input should be"),
        ({"kept": {"newest": 0, "worst": 0}}, "routes.0.kept: newest and worst are both 0"),
        ({"rollout": {"steps": [1]}}, "routes.0.rollout: unknown key"),
        ({"match": {}}, "routes.0.match: expected one of model, default: true, and service"),
        ({"match": {"model": "../etc"}}, "routes.0.match.model: string should match pattern"),
        ({"name": "two words"}, "routes.0.name: string should match pattern"),
        ({"variants": {}}, "routes.0.variants: dictionary should have at least 1 item"),
        ({"variants": {"stable": {"version": "1"}}}, "routes.0.variants.stable.backend: missing"),
        ({"sticky": {"metadata": "X-User"}}, "routes.0.sticky.metadata: string should match"),
        (
            {"compare": {"default": {"rule": "guess"}}},
            "routes.0.compare.default: no rule 'guess', expected one of close",
        ),
        (
            {"compare": {"outputs": {"logits": {"rule": "close", "rtol": -1}}}},
            "routes.0.compare.outputs.logits.close.rtol: input should be greater than or equal",
        ),
        ({"gates": {"per": "0s"}}, "routes.0.gates.per: expected 'request', or 100ms to 1h"),
        ({"gates": {"alpha": 5e-324}}, "routes.0.gates.alpha: input should be"),
        ({"gates": {"slow": {"over": "soon"}}}, "routes.0.gates.slow.over: expected a duration"),
    ],
)
def test_a_wrong_key_is_named_by_its_path(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    assert refusal(tmp_path, changed(**parts)).startswith(said)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"weights": {"stable": 90}}, "route 'digits': weights add up to 90%, expected 100%"),
        ({"weights": {"nix": 100}}, "route 'digits': weights name 'nix', no such variant"),
        ({"shadows": {"nix": 1}}, "route 'digits': shadow 'nix' is no variant of it"),
        ({"variants": {"canary": {"backend": "blue"}}}, "route 'digits': weights name 'stable'"),
        (
            {"variants": {"stable": {"backend": "red"}}, "weights": {"stable": 100}, "shadows": {}},
            "route 'digits': variant 'stable' names backend 'red', which does not exist",
        ),
    ],
)
def test_parts_that_contradict_are_named_by_their_route(
    tmp_path: Path, parts: dict[str, Any], said: str
) -> None:
    assert refusal(tmp_path, changed(**parts)).startswith(said)


@pytest.mark.parametrize("key", ["traceparent", "x-coalmine-variant", "grpc-timeout", "user-bin"])
def test_a_sticky_key_that_would_never_be_found_is_refused(tmp_path: Path, key: str) -> None:
    said = refusal(tmp_path, changed(sticky={"metadata": key}))
    assert said.startswith(f"routes.0.sticky.metadata: '{key}' ")


@pytest.mark.parametrize(
    "service",
    [
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ],
)
def test_a_service_that_the_router_answers_itself_can_be_no_routes(
    tmp_path: Path, service: str
) -> None:
    said = refusal(tmp_path, changed(match={"service": service}))
    assert said == (
        f"routes.0.match.service: '{service}' is answered by the router itself, never by a route"
    )


def test_a_variant_of_another_service_has_no_version_to_set(tmp_path: Path) -> None:
    said = refusal(tmp_path, changed(match={"service": "acme.Scorer"}))
    assert said.startswith("route 'digits': variant 'canary': requests of another service have no")


def test_two_routes_cannot_answer_for_one_model(tmp_path: Path) -> None:
    content = yaml.safe_load(WHOLE)
    content["routes"].append({**content["routes"][0], "name": "other"})

    assert refusal(tmp_path, yaml.safe_dump(content)) == "match: 'model digits' stands there twice"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "backends: missing (and 1 more)"),
        ("- a list", "the file: input should be a valid dictionary"),
        ("a: [", "not YAML: line 1"),
        ("backends: {}", "backends: dictionary should have at least 1 item"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text).startswith(said)


@pytest.mark.parametrize("key", ["listen", "http", "control"])
def test_an_address_that_is_none_is_refused_before_anything_listens(
    tmp_path: Path, key: str
) -> None:
    content = yaml.safe_load(WHOLE)
    content[key] = {"listen": "9001"} if key == "control" else "9001"
    place = "control.listen" if key == "control" else key

    assert refusal(tmp_path, yaml.safe_dump(content)) == (
        f"{place}: '9001' is not an address: expected host:port"
    )


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no such file"):
        read_config(tmp_path / "nix.yaml")
