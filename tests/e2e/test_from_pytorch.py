"""docs/from-pytorch.md, section by section, as somebody would type it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "from-pytorch.md"
NEEDS = {"PyTorch": "torch", "scikit-learn": "sklearn", "transformers": "transformers"}
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = {
    text.partition("\n")[0]: re.findall(
        r"^```(python|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    for text in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
}


def test_every_section_is_tried() -> None:
    assert SECTIONS.keys() == NEEDS.keys()
    assert all([kind for kind, _ in each] == ["python", "sh"] for each in SECTIONS.values())


@pytest.mark.parametrize("section", NEEDS)
def test_what_the_page_says_can_be_typed(section: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(NEEDS[section]) is None:
        pytest.skip(f"{NEEDS[section]} is not installed")
    for kind, text in SECTIONS[section]:
        command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-ec", text]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": programs},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "sha256" in done.stdout
    (version,) = (tmp_path / "models").glob("*/1/model.pt")
    assert version.stat().st_size
