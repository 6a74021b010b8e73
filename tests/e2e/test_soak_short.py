"""The soak in miniature: real processes, two faults, and not one call that fails.

Not the rolling restart: that one fails no caller who waits for answers (test_router_rolling), and
half of this load does not wait.
"""

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
FAULTS = ("canary-killed", "control-stopped")
SECONDS = 3


def test_faults_under_load_fail_no_call() -> None:
    minutes = str(len(FAULTS) * SECONDS / 60)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.soak.run", "--json", "--minutes", minutes),
            *("--only", *FAULTS),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=_ROOT,
        check=False,
    )
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["good"], done.stderr
    assert done.returncode == 0
    rows = {each["fault"]: each for each in said["faults"]}
    assert len(rows) == 1 + len(FAULTS), "and one without a fault"
    assert set(said["rss_mib"]) == {"supervisor", "control", "proxies"}
    assert said["rss_grown"] == []
    assert all(each["requests"] > 0 and each["failed"] == 0 for each in rows.values()), rows
