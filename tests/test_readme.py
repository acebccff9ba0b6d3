"""Every command and example of the README runs, shortened by more flags or replaced paths where it would take long."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as skimage_data

from iptv2_diffusion.cli import export, restore, sample, train, train_restoration

ROOT = Path(__file__).resolve().parents[1]
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


def run(*words: object, folder: Path = ROOT) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


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
@pytest.mark.parametrize("flags", [flags for flags in TRAIN if "--task" not in flags])
def test_train_commands_run(flags: str, tmp_path: Path, emoji_folder: Path) -> None:
    short = ["--steps", 1, "--batch-size", 2, "--output", tmp_path / "run"]
    if "--data-path" in flags:
        folder = tmp_path / "imagenet" / "train"
        folder.mkdir(parents=True)
        (folder / "emoji").symlink_to(emoji_folder / "images")
        flags = flags.replace("imagenet/train", str(folder))
        short += ["--vae", ROOT / "iptv2_diffusion/assets/emoji/vae", "--image-size", 128, "--workers", 0]
    launch(*shlex.split(flags), *short)
    assert (tmp_path / "run" / "checkpoint-00000001" / "run.json").is_file()


@pytest.mark.slow
def test_the_lines_of_table_6_run_in_turn(tmp_path: Path, emoji_folder: Path) -> None:
    """On two classes, the bundled VAE under the name of the protocol's, and a feature space that is no Inception's."""
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
        words = [str(ROOT / word) if word.endswith(".py") else word for word in words]
        run(sys.executable, *words, folder=tmp_path)
    assert "frechet_distance[vae-latents]@4" in (tmp_path / "scores.json").read_text("utf-8")


def launch(*flags: object) -> None:
    run(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "train.py", *flags)


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
    output = tmp_path_factory.mktemp("restorer") / "run"
    short = ["--steps", 1, "--stages", "0:64x1", "--hold-out", 0, "--workers", 0]
    task = ["--task", "denoise-color", "--sigma", 25, "--model", "IPTV2-Ti", "--data-path", photographs / "target"]
    run(sys.executable, "train.py", *task, *short, "--output", output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("flags", [flags for flags in TRAIN if "--task" in flags])
def test_restoration_training_commands_run(flags: str, tmp_path: Path, photographs: Path) -> None:
    paths = {"DFWB": photographs / "target", "photos": photographs / "target", "GOPRO_Large": photographs}
    words = [str(paths.get(word, word)) for word in shlex.split(flags)]
    words += [] if "--schedule-scale" in words else ["--steps", "1"]
    launch(*words, "--stages", "0:64x2", "--hold-out", 1, "--workers", 0, "--output", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint-00000001" / "run.json").is_file() != ("--dry-run" in words)


@pytest.mark.slow
@pytest.mark.parametrize("flags", RESTORE)
def test_restore_commands_run(flags: str, tmp_path: Path, photographs: Path, restorer_run: Path) -> None:
    folder = photographs / "target"
    paths = {"photo.jpg": folder / "0.png", "photos": folder, "restored": tmp_path, RUN: restorer_run}
    words = [str(paths.get(word, word)) for word in shlex.split(flags)]
    run(sys.executable, "-m", "iptv2_diffusion.cli.restore", *words)
    assert len(list(tmp_path.glob("*.png"))) == (3 if str(folder) in words else 1)


@pytest.mark.slow
@pytest.mark.parametrize("flags", EXPORT)
def test_export_commands_run(flags: str, tmp_path: Path, restorer_run: Path) -> None:
    flags = flags.replace(RUN, str(restorer_run)).replace("--output ", f"--output {tmp_path}/")
    run(sys.executable, "-m", "iptv2_diffusion.cli.export", *shlex.split(flags))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", EVALUATE)
def test_evaluation_commands_run(words: str, tmp_path: Path, photographs: Path, request: pytest.FixtureRequest) -> None:
    script, *flags = shlex.split(words)
    if "--ckpt" in flags:
        paths = {RUN: request.getfixturevalue("restorer_run"), "photo.jpg": photographs / "input" / "0.png"}
        if "CBSD68" in flags:
            paths["CBSD68"] = request.getfixturevalue("shared_data")("cbsd68")
            flags += ["--limit", "1"]
        flags = [str(paths.get(flag, flag)) for flag in flags]
        flags[flags.index("--output") + 1] = str(tmp_path / flags[flags.index("--output") + 1])
    assert run(sys.executable, "-m", "eval" + script, *flags)
