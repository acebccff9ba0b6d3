"""The evaluation commands of the documents are complete: they parse as written."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import denoise_bm3d
from iptv2_diffusion.cli import evaluate_restoration
from iptv2_diffusion.config import from_flags

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/models.md", "docs/restoration.md", "eval/README.md")
COMMAND = re.compile(r"python -m (eval\.restoration|benchmarks\.denoise_bm3d)((?:\\\n|[^`\n])*)")
COMMANDS = [
    (document, *found) for document in DOCUMENTS for found in COMMAND.findall((ROOT / document).read_text("utf-8"))
]


def test_there_are_commands_in_every_document() -> None:
    assert {document for document, *_ in COMMANDS} == set(DOCUMENTS)


@pytest.mark.parametrize(("document", "module", "flags"), COMMANDS)
def test_commands_parse(
    document: str, module: str, flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(flags, comments=True)
    if module == "eval.restoration":
        parsed = evaluate_restoration.make_parser().parse_args(words)
        from_flags(evaluate_restoration.EvaluateConfig, parsed)
    else:
        denoise_bm3d.make_parser().parse_args(words)
