"""Imports point down only: layers -> backbone -> (diffusion | restoration) -> cli, beside leaves that import no other part."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "iptv2_diffusion"
TOOLS = {"config", "pictures", "rng"}
LEAVES = {"data", "metrics", "engine"} | TOOLS
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES},
    "layers": set(),
    "backbone": {"layers"},
    "diffusion": {"backbone", "layers", *TOOLS},
    "restoration": {"backbone", "layers", *TOOLS},
    "cli": {"diffusion", "restoration", "backbone", "layers", *LEAVES},
}
OWNERS = {
    "accelerate": {"engine", "cli"},
    "diffusers": {"diffusion", "restoration", "cli"},
    "torch_fidelity": {"metrics", "cli"},
}


def imported_modules(source: str, package: list[str]) -> Iterator[str]:
    """Dotted names, wherever in the file; `package` is the one that relative imports start from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = [*parents, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in MAY_IMPORT, f"{part} has no place among the layers"
    for name in imported_modules(path.read_text("utf-8"), ["iptv2_diffusion", *path.relative_to(PACKAGE).parts[:-1]]):
        top, *below = name.split(".")
        assert part in OWNERS.get(top, {part}), f"{top} does not belong in {part}"
        if top == "iptv2_diffusion" and below and below[0] in MAY_IMPORT:
            assert below[0] in MAY_IMPORT[part] | {part}, f"{part} must not import {below[0]}"


def test_relative_and_nested_imports_are_seen() -> None:
    source = "def f():\n    from ..cli import train\n    from . import y\n    import accelerate.utils\n"
    found = list(imported_modules(source, ["iptv2_diffusion", "layers"]))
    assert found == ["iptv2_diffusion.cli.train", "iptv2_diffusion.layers.y", "accelerate.utils"]


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, iptv2_diffusion; print({'diffusers', 'torch_fidelity', 'accelerate'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
