"""Every command and example of the README runs, shortened by more flags or replaced paths where it would take long."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from iptv2_diffusion.cli import sample, train

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(prefix: str) -> list[str]:
    lines = [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [line.removeprefix(prefix).strip() for line in lines if line.startswith(prefix)]


SAMPLE = commands("python sample.py")
TRAIN = commands("accelerate launch train.py")
EVALUATE = commands("python -m eval")


def run(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_no_command_is_left_out() -> None:
    known = ("pip install -e", "make check test", "make test-slow")
    covered = len(SAMPLE) + len(TRAIN) + len(EVALUATE)
    lines = [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    assert len([line for line in lines if line and not line.startswith(known)]) == covered
    assert {"--cfg-scale 4.0"} <= set(SAMPLE)
    assert {"--model IPTV2-S"} <= set(TRAIN)
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert 'pip install --quiet --disable-pip-version-check -e ".[dev]"' in ci
    assert "make check test" in ci


@pytest.mark.parametrize("flags", SAMPLE)
def test_sample_commands_parse(flags: str) -> None:
    sample.make_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize("flags", TRAIN)
def test_train_commands_parse(flags: str) -> None:
    train.make_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split()[1])
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("guidance_scale=4.0", "guidance_scale=4.0, num_inference_steps=2"), "README", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("flags", SAMPLE)
def test_sample_commands_run(flags: str, tmp_path: Path) -> None:
    short = ["--steps", 2, "--num-samples", 2, "--output", tmp_path / "drawn"]
    if "runs/IPTV2-S" in flags:
        tiny = ["--model", "IPTV2-Ti-16", "--batch-size", 2, "--preview-every", "none", "--validate-every", "none"]
        run(sys.executable, "train.py", "--steps", 1, *tiny, "--output", tmp_path / "run")
        flags = flags.replace("runs/IPTV2-S", str(tmp_path / "run"))
        flags = flags.replace("207", "2").replace("golden retriever", "objects")  # classes of the bundled set
    run(sys.executable, "sample.py", *shlex.split(flags), *short)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("flags", TRAIN)
def test_train_commands_run(flags: str, tmp_path: Path, emoji_folder: Path) -> None:
    short = ["--steps", 1, "--batch-size", 2, "--output", tmp_path / "run"]
    if "--data-path" in flags:
        folder = tmp_path / "imagenet" / "train"
        folder.mkdir(parents=True)
        (folder / "emoji").symlink_to(emoji_folder / "images")
        flags = flags.replace("imagenet/train", str(folder))
        short += ["--vae", ROOT / "iptv2_diffusion/assets/emoji/vae", "--image-size", 128, "--workers", 0]
    run(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "train.py", *shlex.split(flags), *short)
    assert (tmp_path / "run" / "checkpoint-00000001" / "run.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("words", EVALUATE)
def test_evaluation_commands_run(words: str) -> None:
    assert run(sys.executable, "-m", "eval" + words.split()[0], *shlex.split(words)[1:])
