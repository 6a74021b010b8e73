"""The files that router.yaml names, looked at before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from coalmine.errors import StartError
from coalmine_router.config.file import parse_config
from coalmine_router.files import check_files
from tests.doubles.certificates import Authority


def config(**parts: Any) -> Any:
    text = {
        "backends": {"blue": {"targets": ["127.0.0.1:8001"], **parts.pop("blue", {})}},
        "routes": [
            {"name": "d", "match": {"model": "d"}, "variants": {"stable": {"backend": "blue"}}}
        ],
        **parts,
    }
    return parse_config(yaml.safe_dump(text), path=Path("router.yaml"))


@pytest.mark.parametrize(
    "parts",
    [
        {"tls": {"cert": "gone.pem", "key": "gone.pem"}},
        {"tokens": "gone.yaml"},
        {"control": {"tls": {"cert": "gone.pem", "key": "gone.pem"}}},
        {"control": {"tokens": "gone.yaml"}},
        {"blue": {"tls": {"ca": "gone.pem"}}},
        {"blue": {"token_file": "gone"}},
    ],
)
def test_a_file_that_is_missing_is_named(parts: dict[str, Any]) -> None:
    with pytest.raises(StartError, match="gone"):
        check_files(config(**parts))


def test_files_that_are_good_are_read_and_nothing_is_said(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    tls = {"cert": str(pair.cert), "key": str(pair.key)}
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text("tokens: []\n")
    check_files(
        config(
            tls=tls,
            tokens=str(tokens),
            control={"tls": {**tls, "client_ca": str(authority.ca)}},
            blue={"tls": {"ca": str(authority.ca)}},
        )
    )
