"""Every command and example of the README runs, shortened by more flags or replaced paths where it would take long.

So is training, by networks that are smaller than the presets whose names they have: one line trains the preset.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import forked
import pytest
from PIL import Image
from skimage import data as skimage_data

from iptv2_diffusion.cli import export, restore, sample, train, train_restoration

ROOT = Path(__file__).resolve().parents[1]
SMALL_TRAIN = ROOT / "tests" / "small_train.py"
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


TABLE_6 = next(block for block in blocks("bash") if "--protocol" in block).splitlines()


def commands(prefix: str) -> list[str]:
    lines = [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    lines = [line for line in lines if line not in TABLE_6]
    return [line.removeprefix(prefix).strip() for line in lines if line.startswith(prefix)]


SAMPLE = commands("python sample.py")
RESTORE = commands("iptv2-restore")
EXPORT = commands("iptv2-export")
RUN = "runs/denoise-color-IPTV2-Ti"  # of the README's examples
TRAIN = commands("accelerate launch train.py")
EVALUATE = commands("python -m eval")


def test_no_command_is_left_out() -> None:
    known = ("pip install -e", "make check test", "make test-slow")
    covered = sum(map(len, (SAMPLE, TRAIN, EVALUATE, RESTORE, EXPORT, TABLE_6)))
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
    (train_restoration if "--task" in flags else train).make_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize("flags", RESTORE)
def test_restore_commands_parse(flags: str) -> None:
    restore.make_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize("flags", EXPORT)
def test_export_commands_parse(flags: str) -> None:
    export.make_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split()[1])
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = code.replace("guidance_scale=4.0", "guidance_scale=4.0, num_inference_steps=2").replace("97, 131", "41, 67")
    exec(compile(code, "README", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("flags", SAMPLE)
def test_sample_commands_run(flags: str, tmp_path: Path) -> None:
    short = ["--steps", 2, "--num-samples", 2, "--output", tmp_path / "drawn"]
    if "runs/IPTV2-S" in flags:
        forked.run(tmp_path / "train", SMALL_TRAIN, "--steps", 1, "--batch-size", 2, "--output", tmp_path / "run")
        flags = flags.replace("runs/IPTV2-S", str(tmp_path / "run"))
        flags = flags.replace("207", "2").replace("golden retriever", "objects")  # classes of the bundled set
    forked.run(tmp_path / "sample", ROOT / "sample.py", *shlex.split(flags), *short)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("flags", [flags for flags in TRAIN if "--task" not in flags])
def test_train_commands_run(flags: str, tmp_path: Path, emoji_folder: Path) -> None:
    short = ["--steps", 1, "--batch-size", 2, "--output", tmp_path / "run"]
    if "--data-path" in flags:
        folder = tmp_path / "imagenet" / "train"
        folder.mkdir(parents=True)
        (folder / "emoji").symlink_to(emoji_folder / "images")
        flags = flags.replace("imagenet/train", str(folder))
        short += ["--vae", ROOT / "iptv2_diffusion/assets/emoji/vae", "--image-size", 128, "--workers", 0]
    words = [*shlex.split(flags), *short]
    if flags == "--model IPTV2-S":
        run("-m", "accelerate.commands.launch", "--cpu", "train.py", *words)
    else:
        forked.run(tmp_path / "train", SMALL_TRAIN, *words)
    assert (tmp_path / "run" / "checkpoint-00000001" / "run.json").is_file()


SMALL_PROTOCOLS = """\
from dataclasses import replace
from iptv2_diffusion.diffusion.protocols import PROTOCOLS
PROTOCOLS.update({name: replace(p, size=128, model={"num_classes": 2}) for name, p in PROTOCOLS.items()})
"""  # Python runs it at its start where it lies in the folder of `run`


@pytest.mark.slow
def test_the_lines_of_table_6_run_in_turn(tmp_path: Path, emoji_folder: Path) -> None:
    """On two classes of 128 pixels, the bundled VAE under the name of the protocol's, and features that are no Inception's."""
    (tmp_path / "sitecustomize.py").write_text(SMALL_PROTOCOLS)
    shutil.copytree(ROOT / "iptv2_diffusion/assets/emoji/vae", tmp_path / "sd-vae-ft-ema")
    (tmp_path / "imagenet/train").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "imagenet/train" / name).symlink_to(emoji_folder / "images")
    (tmp_path / "VIRTUAL_imagenet256_labeled.npz").symlink_to(emoji_folder / "images")
    more = (
        "--vae sd-vae-ft-ema --image-size 128 --workers 0",
        "--model IPTV2-Ti-16 --image-size 128 --steps 1 --batch-size 2 --workers 0 --output runs/IPTV2-S",
        "--num-samples 4",
        "--features vae-latents --size 128 --cache none --output scores.json",
    )
    for line, flags in zip(TABLE_6, more, strict=True):
        words = f"{line} {flags}".replace("iptv2-data", "-m iptv2_diffusion.cli.data").split()
        if words[:2] == ["accelerate", "launch"]:
            words[:2] = ["-m", "accelerate.commands.launch", "--cpu"]
        scripts = {"train.py": SMALL_TRAIN, "sample.py": ROOT / "sample.py"}
        run(*(scripts.get(word, word) for word in words), folder=tmp_path)
    assert "frechet_distance[vae-latents]@4" in (tmp_path / "scores.json").read_text("utf-8")


def run(*words: object, folder: Path = ROOT) -> None:
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pairs, whose clean pictures serve where photographs are asked for."""
    root = tmp_path_factory.mktemp("pairs")
    for folder in ("input", "target"):
        (root / folder).mkdir()
        for number in range(3):
            picture = Image.fromarray(skimage_data.astronaut()[100 * number :][:80, 150:240])
            picture.save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def restorer_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restorer")
    short = ["--steps", 1, "--stages", "0:64x1", "--hold-out", 0, "--workers", 0]
    task = ["--task", "denoise-color", "--sigma", 25, "--model", "IPTV2-Ti", "--data-path", photographs / "target"]
    forked.run(folder / "train", SMALL_TRAIN, *task, *short, "--output", folder / "run")
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("flags", [flags for flags in TRAIN if "--task" in flags])
def test_restoration_training_commands_run(flags: str, tmp_path: Path, photographs: Path) -> None:
    paths = {"DFWB": photographs / "target", "photos": photographs / "target", "GOPRO_Large": photographs}
    words = [str(paths.get(word, word)) for word in shlex.split(flags)]
    words += [] if "--schedule-scale" in words else ["--steps", "1"]
    short = ["--stages", "0:64x2", "--hold-out", 1, "--workers", 0]
    forked.run(tmp_path / "train", SMALL_TRAIN, *words, *short, "--output", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint-00000001" / "run.json").is_file() != ("--dry-run" in words)


@pytest.mark.slow
@pytest.mark.parametrize("flags", RESTORE)
def test_restore_commands_run(flags: str, tmp_path: Path, photographs: Path, restorer_run: Path) -> None:
    folder = photographs / "target"
    restored = tmp_path / "restored"
    paths = {"photo.jpg": folder / "0.png", "photos": folder, "restored": restored, RUN: restorer_run}
    words = [str(paths.get(word, word)) for word in shlex.split(flags)]
    forked.run(tmp_path / "restore", "iptv2_diffusion.cli.restore", *words)
    assert len(list(restored.glob("*.png"))) == (3 if str(folder) in words else 1)


@pytest.mark.slow
@pytest.mark.parametrize("flags", EXPORT)
def test_export_commands_run(flags: str, tmp_path: Path, restorer_run: Path) -> None:
    flags = flags.replace(RUN, str(restorer_run)).replace("--output ", f"--output {tmp_path}/exported/")
    forked.run(tmp_path / "export", "iptv2_diffusion.cli.export", *shlex.split(flags))
    assert len(list((tmp_path / "exported").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", EVALUATE)
def test_evaluation_commands_run(
    words: str,
    tmp_path: Path,
    photographs: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, *flags = shlex.split(words)
    if "--ckpt" in flags:
        paths = {RUN: request.getfixturevalue("restorer_run"), "photo.jpg": photographs / "input" / "0.png"}
        if "CBSD68" in flags:
            paths["CBSD68"] = request.getfixturevalue("shared_data")("cbsd68")
            flags += ["--limit", "1"]
        flags = [str(paths.get(flag, flag)) for flag in flags]
        flags[flags.index("--output") + 1] = str(tmp_path / flags[flags.index("--output") + 1])
    monkeypatch.setattr(sys, "argv", ["eval" + script, *flags])
    import_module("eval" + script).main()
    assert capsys.readouterr().out
