"""A real MLServer, in an environment of its own: `make mlserver` installs and runs it."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from tests.doubles.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-mlserver" / "bin" / "mlserver"
_RUNTIME = Path(__file__).parent / "mlserver"
_READY_S = 60.0


@contextmanager
def mlserver(program: Path, folder: Path, model: Path) -> Iterator[str]:
    """Serve a file of the digits as version 1 until the block ends; yield its gRPC address."""
    http, rpc, metrics = _free_ports(3)
    ports = {"http_port": http, "grpc_port": rpc, "metrics_port": metrics}
    _written(folder / "settings.json", host="127.0.0.1", parallel_workers=0, debug=False, **ports)
    parameters = {"uri": str(model), "version": "1", "extra": {"outputs": ["logits", "label"]}}
    _written(
        folder / "model-settings.json",
        name="digits",
        implementation="runtime.TorchScript",
        parameters=parameters,
    )
    environment = {**os.environ, "PYTHONPATH": str(_RUNTIME), "OMP_NUM_THREADS": "1"}
    with (folder / "mlserver.log").open("w") as log:
        process = subprocess.Popen(
            [program, "start", folder], stdout=log, stderr=log, env=environment, cwd=folder
        )
    address = f"127.0.0.1:{rpc}"
    try:
        _wait_ready(process, address, folder / "mlserver.log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerReady"
        )

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return call(b"", timeout=1) == b"\x08\x01"
            except grpc.RpcError:
                return False

        until(is_ready, _READY_S)


def _written(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(settings))


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now: MLServer can't be told to choose, nor says what it chose."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
