"""grpcurl, grpc-health-probe, ghz and Jaeger: what users have, built from their Go modules.

`python -m tests.conformance.go_programs` builds them. Each folder of gotools/ is a module, whose
go.mod names the programs and go.sum what they are made of: ghz needs a gRPC of its own time, and
Jaeger, of whose page only the calls are in it, hundreds of modules and five minutes.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.needs import GO_PROGRAMS

_MODULES: Final = Path(__file__).parent / "gotools"
_SAYS_EACH_S: Final = 15.0
_RUN_S: Final = 60.0

needs_go_programs = pytest.mark.needs("go_programs")


def run_go_program(
    name: str, *arguments: str | Path, within_s: float = _RUN_S
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs to its end."""
    command = [GO_PROGRAMS / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False)


def build() -> int:
    """Build all of them, and return an exit code: that of the first that failed, or 0."""
    if not shutil.which("go"):
        print("go: there is no `go`")
        return 1
    return next((code for each in sorted(_MODULES.iterdir()) if (code := _build(each))), 0)


def _build(module: Path) -> int:
    """Build the programs of one module, with a line now and then: from nothing it takes minutes."""
    began = time.monotonic()
    print(f"go: building the programs of {module.name}/go.mod", flush=True)
    into = f"{GO_PROGRAMS}/"
    command = ["nice", "-n", "19", "go", "build", "-trimpath", "-buildvcs=false", "-o", into]
    with subprocess.Popen([*command, "tool"], cwd=module) as building:
        while True:
            try:
                code = building.wait(_SAYS_EACH_S)
            except subprocess.TimeoutExpired:
                print(f"go: still building, {time.monotonic() - began:.0f} s", flush=True)
            else:
                print(f"go: {'failed' if code else 'done'}, {time.monotonic() - began:.0f} s")
                return code


if __name__ == "__main__":
    sys.exit(build())
