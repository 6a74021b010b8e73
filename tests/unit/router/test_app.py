"""What `router run` gives to the processes that it starts."""

from pathlib import Path
from typing import Any

import pytest

from coalmine.errors import StartError
from coalmine_router.app import RunSettings, _proxy_arguments
from coalmine_router.config.file import RouterConfig
from coalmine_router.supervisor import Grace
from tests.doubles.control_rig import router_config

SOCKET = "unix:/x/control.sock"


def settings(folder: Path, **more: Any) -> RunSettings:
    plain = router_config(folder, "127.0.0.1:1").model_dump(exclude_defaults=True)
    config = RouterConfig.model_validate({**plain, **more})
    return RunSettings(folder / "router.yaml", "", config, 1, Grace.of(30))


def given(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments else ""


def test_proxies_get_the_files_of_the_data_port(tmp_path: Path) -> None:
    tls = {"cert": "c.pem", "key": "k.pem", "client_ca": "ca.pem"}
    asked = settings(tmp_path, tls=tls, tokens="t.yaml")
    arguments = _proxy_arguments(asked, "127.0.0.1:9001", SOCKET)
    assert given(arguments, "--tls-cert") == "c.pem"
    assert given(arguments, "--tls-key") == "k.pem"
    assert given(arguments, "--tls-client-ca") == "ca.pem"
    assert given(arguments, "--tokens") == "t.yaml"


def test_proxies_get_no_more_than_the_file_says(tmp_path: Path) -> None:
    arguments = _proxy_arguments(settings(tmp_path), "127.0.0.1:9001", SOCKET)
    assert not [each for each in arguments if each.startswith(("--tls", "--tok"))]
    one_way = settings(tmp_path, tls={"cert": "c.pem", "key": "k.pem"})
    assert "--tls-client-ca" not in _proxy_arguments(one_way, "127.0.0.1:9001", SOCKET)


@pytest.mark.parametrize("more", [{"tokens": "t.yaml"}, {"tls": {"cert": "c", "key": "k"}}])
def test_where_control_is_guarded_its_own_proxies_need_the_socket(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    guarded = settings(tmp_path, control={"state": str(tmp_path), **more})
    assert given(_proxy_arguments(guarded, "127.0.0.1:1", SOCKET), "--control") == SOCKET
    with pytest.raises(StartError, match="too long a path for a socket"):
        _proxy_arguments(guarded, "127.0.0.1:1", "127.0.0.1:9002")
    _proxy_arguments(settings(tmp_path), "127.0.0.1:1", "127.0.0.1:9002")
