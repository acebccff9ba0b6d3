"""What holds for the project as a whole: sizes of files and functions, one version, licence notices, console scripts."""

import ast
import importlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "iptv2_diffusion"
SOURCES = sorted(
    path
    for folder in ("iptv2_diffusion", "eval", "scripts", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
)
LONGEST_FILE = 300  # lines
LONGEST_FUNCTION = 60  # lines, with its docstring
LARGEST_ASSETS = 57 * 2**20  # bytes, all shipped binary files together


def read(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


def console_scripts() -> list[tuple[str, str]]:
    section = read("pyproject.toml").split("[project.scripts]\n")[1].split("\n\n")[0]
    return re.findall(r'^[\w-]+ = "([\w.]+):(\w+)"$', section, re.MULTILINE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{node.name} is too long"


def test_the_version_is_stated_once_everywhere() -> None:
    version = re.findall(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)[0]
    assert importlib.import_module("iptv2_diffusion").__version__ == version
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert re.findall(r"^## \[(\d.*?)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == version


@pytest.mark.parametrize(("module", "function"), console_scripts())
def test_console_scripts_exist(module: str, function: str) -> None:
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(
    "notice", ["tests/assets/fluent_emoji_3d/LICENSE", "iptv2_diffusion/assets/FLUENT_EMOJI_LICENSE"]
)
def test_emoji_notices_are_kept(notice: str) -> None:
    text = read(notice)
    assert "Copyright (c) Microsoft Corporation." in text
    assert "Copyright (c) 2023 LobeHub" in text
    assert "The above copyright notice and this permission notice shall be included" in text


def test_every_folder_of_code_is_installed() -> None:
    assert [path for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").is_file()] == []


def test_shipped_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in (PACKAGE / "assets").rglob("*") if path.is_file()) <= LARGEST_ASSETS
