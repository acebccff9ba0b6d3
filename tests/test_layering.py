"""Imports point down only: layers -> backbone -> (diffusion | restoration) -> cli, beside leaves that import no other part."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

from iptv2_diffusion import _HOMES

ROOT = "iptv2_diffusion"
PACKAGE = Path(__file__).resolve().parents[1] / ROOT
TOOLS = {"config", "errors", "files", "pictures", "rng"}
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
        elif isinstance(node, ast.Call) and (name := literal_import(node)):
            yield resolve_name(name, ".".join(package))


def literal_import(call: ast.Call) -> str | None:
    """The module that import_module("...") or __import__("...") asks for, unless it is computed."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    if function not in ("import_module", "__import__") or not arguments or not isinstance(arguments[0], ast.Constant):
        return None
    return str(arguments[0].value)


def refusal(part: str, name: str) -> str | None:
    """Why a file of `part` must not import the dotted `name`; public names count as the module they come from."""
    top, *below = name.split(".")
    if top == ROOT and below[:1] == ["__version__"]:
        return None
    if top == ROOT and below and below[0] in _HOMES:
        top, *below = _HOMES[below[0]].split(".")
    if part not in OWNERS.get(top, {part}):
        return f"{top} does not belong in {part}"
    if top != ROOT:
        return None
    if not below or below[0] not in MAY_IMPORT:
        return f"{name} is neither a part of the package nor a public name"
    return None if below[0] in MAY_IMPORT[part] | {part} else f"{part} must not import {below[0]}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    folders = path.relative_to(PACKAGE).parts
    part = folders[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in MAY_IMPORT, f"{part} has no place among the layers"
    names = imported_modules(path.read_text("utf-8"), [ROOT, *folders[:-1]])
    assert [reason for name in names if (reason := refusal(part, name))] == []


def test_relative_nested_and_called_imports_are_seen() -> None:
    source = """
def f():
    from ..cli import train
    from . import y
    import accelerate.utils
    import_module("accelerate")
    importlib.import_module(name="..cli.sample", package=__package__)
    __import__("torch_fidelity")
    import_module(name)
    path.import_module()
"""
    assert list(imported_modules(source, [ROOT, "layers"])) == [
        "iptv2_diffusion.cli.train",
        "iptv2_diffusion.layers.y",
        "accelerate.utils",
        "accelerate",
        "iptv2_diffusion.cli.sample",
        "torch_fidelity",
    ]


@pytest.mark.parametrize(
    ("part", "source", "reason"),
    [
        ("layers", "from iptv2_diffusion import create_denoiser", "layers must not import diffusion"),
        ("diffusion", "from iptv2_diffusion import IPTV2Restorer as R", "diffusion must not import restoration"),
        ("layers", "from iptv2_diffusion import ModelMixin", "diffusers does not belong in layers"),
        ("layers", "from iptv2_diffusion import backbone", "layers must not import backbone"),
        ("layers", "import iptv2_diffusion.backbone.block as b", "layers must not import backbone"),
        ("data", 'import_module("iptv2_diffusion.rng")', "data must not import rng"),
        ("backbone", 'importlib.import_module("accelerate")', "accelerate does not belong in backbone"),
        ("cli", "from iptv2_diffusion import *", "iptv2_diffusion.* is neither"),
        ("cli", "from iptv2_diffusion import absent", "iptv2_diffusion.absent is neither"),
        ("cli", "import iptv2_diffusion", "iptv2_diffusion is neither"),
    ],
)
def test_imports_that_are_refused(part: str, source: str, reason: str) -> None:
    (name,) = imported_modules(source, [ROOT, part])
    assert (refusal(part, name) or "").startswith(reason)


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("layers", "from iptv2_diffusion import __version__"),
        ("layers", "from iptv2_diffusion.layers.conv import Conv"),
        ("diffusion", "from iptv2_diffusion import create_denoiser"),
        ("cli", "from iptv2_diffusion import create_restorer"),
        ("diffusion", "from iptv2_diffusion import rng"),
        ("layers", "from torch import nn"),
        ("engine", "import accelerate"),
    ],
)
def test_imports_that_are_allowed(part: str, source: str) -> None:
    (name,) = imported_modules(source, [ROOT, part])
    assert refusal(part, name) is None


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, iptv2_diffusion; print({'diffusers', 'torch_fidelity', 'accelerate'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
