"""An installed package that brings rules, as pip leaves it."""

from pathlib import Path


def install_rules(folder: Path, code: str, rules: dict[str, str]) -> None:
    """Write the module `acme_rules` and its entry points, name to class, into a folder."""
    info = folder / "acme_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in rules.items()]
    (info / "entry_points.txt").write_text("\n".join(["[coalmine.rules]", *lines]))
    (folder / "acme_rules.py").write_text(code)
