"""scripts/train_bundled.sh: every command in it parses, and goes on from what the one before has left."""

import os
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from iptv2_diffusion.cli import train, train_restoration
from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.config import from_flags

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("denoise-color", "denoise-gray", "derain", "motion-deblur")
RECORD = '#!/bin/sh\nprintf "%s\\n" "$(basename "$0") $*" >> "$RECORD"\n'


def commands(tmp_path: Path, *arguments: str) -> list[list[str]]:
    """What the script would run, in place of which words are written down."""
    for program in ("accelerate", "python", "iptv2-export"):
        (tmp_path / program).write_text(RECORD)
        (tmp_path / program).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")}
    script = ["bash", ROOT / "scripts/train_bundled.sh", *arguments]
    subprocess.run(script, env=environment, check=True, capture_output=True, text=True)
    return [shlex.split(line) for line in (tmp_path / "record").read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_restorers_are_trained_and_exported(task: str, tmp_path: Path) -> None:
    *training, export = commands(tmp_path, task, "photographs", "runs/new")
    made, last = {"denoise-color"}, ""
    for number, (program, launch, script, *flags) in enumerate(training):
        assert (program, launch, script) == ("accelerate", "launch", "train.py")
        parsed = train_restoration.make_parser().parse_args(flags)
        config = from_flags(RestorationConfig, parsed)
        assert config.task == task
        assert (config.init is None) == (number == 0 and task in ("denoise-color", "derain"))
        assert config.init in {None, *made}
        last = str(parsed.output)
        made.add(last)
    assert export == ["iptv2-export", "--ckpt", last, "--half", "--output", f"runs/new/{task}.safetensors"]


@pytest.mark.parametrize("name", ["emoji", *TASKS])
def test_precision_is_for_the_caller_to_choose(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECISION", "no")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    parsers = {
        "scripts/train_autoencoder.py": import_module("train_autoencoder").make_parser(),
        "train.py": (train if name == "emoji" else train_restoration).make_parser(),
    }
    training = [command for command in commands(tmp_path, name, "data", "runs/new") if "--precision" in command]
    assert training
    for command in training:
        script = next(word for word in command if word in parsers)
        assert parsers[script].parse_args(command[command.index(script) + 1 :]).precision == "no"


def test_deraining_is_trained_on_the_test_part_only(tmp_path: Path) -> None:
    """From the first weight on: BSDS500's train part has the scenes of Rain100H."""
    (command, _) = commands(tmp_path, "derain", "photographs")
    assert "--init" not in command
    paths = command[command.index("--data-path") + 1 :]
    assert paths[: paths.index("--stages")] == ["photographs/test"]


def test_emoji_are_trained_and_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    bundle_emoji, train_autoencoder = import_module("bundle_emoji"), import_module("train_autoencoder")
    autoencoder, latents, first, second, denoiser = commands(tmp_path, "emoji", "pictures", "runs/new")
    assert [autoencoder[1], latents[1], denoiser[1]] == [
        f"scripts/{name}.py" for name in ("train_autoencoder", "bundle_emoji", "bundle_emoji")
    ]
    made = train_autoencoder.make_parser().parse_args(autoencoder[2:]).output / "vae"
    encoded = bundle_emoji.make_parser().parse_args(latents[2:])
    assert (encoded.vae, encoded.replace) == (made, True)
    outputs = [train.make_parser().parse_args(command[3:]).output for command in (first, second)]
    bundled = bundle_emoji.make_parser().parse_args(denoiser[2:])
    assert (bundled.checkpoint, bundled.replace) == (outputs[-1], True)


@pytest.mark.parametrize("arguments", [(), ("derain",), ("deblur", "photographs")])
def test_refuses_what_it_cannot_train(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        commands(tmp_path, *arguments)
    assert error.value.returncode == 2
    assert "NAME" in error.value.stderr
