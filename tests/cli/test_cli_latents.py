"""`iptv2-data latents`: moments of pictures in shards, and training on them."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoding import SIZE, contents, encode, flags_of, loaded
from PIL import Image

from iptv2_diffusion import LatentCodec
from iptv2_diffusion.cli import latents
from iptv2_diffusion.cli.data import LatentsConfig
from iptv2_diffusion.data.latent_format import read_index
from iptv2_diffusion.data.latent_shards import check_latents
from iptv2_diffusion.diffusion.latents import center_crop
from iptv2_diffusion.engine import read_records

ROOT = Path(__file__).resolve().parents[2]
BUNDLED_VAE = ROOT / "iptv2_diffusion/assets/emoji/vae"
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def images_of(root: Path, names: list[str]) -> torch.Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    crops = []
    for name in names:
        with Image.open(root / name) as picture:
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture.convert("RGBA"))
            crops.append(np.array(center_crop(white.convert("RGB"), SIZE)))
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_moments_of_pictures_and_of_their_mirror_images(
    command: Callable[..., None], shard_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = shard_settings["data_path"], tmp_path / "latents"
    command("data", "latents", *flags_of(shard_settings), "--output", output)
    assert f"12 pictures of 2 classes are in {output}" in capsys.readouterr().out
    moments, labels, names = loaded(output)
    assert names == sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    assert labels == [0] * 6 + [1] * 6
    images, codec = images_of(root, names), LatentCodec.from_pretrained(shard_settings["vae"])
    for view, seen in enumerate((images, images.flip(-1))):
        for part, expected in enumerate(codec.moments(seen)):
            torch.testing.assert_close(moments[:, view, part], expected, rtol=1e-5, atol=1e-5)
    assert (moments[:, 0] - moments[:, 1].flip(-1)).abs().max() > 1e-3  # a mirrored latent is not the mirror image's
    header, _ = read_index(output)
    assert (header.scale, header.shift, header.shape) == (0.18215, 0.0, (4, SIZE // 8, SIZE // 8))
    assert (header.classes, header.count, header.shards) == (("even", "odd"), 12, 3)
    command("data", "check", "--input", output)
    assert "12 pictures in 3 shards of latents, all of them whole" in capsys.readouterr().out


def test_half_precision_rounds_and_one_view_is_the_first(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    whole = loaded(encode(tmp_path / "whole", shard_settings))[0]
    half = loaded(encode(tmp_path / "half", shard_settings | {"dtype": "float16", "flip": False}))[0]
    torch.testing.assert_close(half, whole[:, :1].half(), rtol=0, atol=0)


def test_another_share_is_held_out_without_encoding(
    shard_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = encode(tmp_path / "latents", shard_settings)
    before = contents(output)
    monkeypatch.setattr(LatentCodec, "moments", None)
    encode(output, shard_settings | {"hold_out": 4})
    assert read_index(output)[0].hold_out == check_latents(output).hold_out == 4
    encode(output, shard_settings)
    assert contents(output) == before


def test_a_root_that_fits_several_layouts_is_refused(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    root = shard_settings["data_path"]
    write_tars(tmp_path / "tars", root, sorted(str(path.relative_to(root)) for path in root.rglob("*.png")), [0] * 12)
    (tmp_path / "tars" / "0.tar").rename(root / "stray.tar")
    (root / "metadata.csv").write_text("notes\n")
    expected = "fits several layouts, tars (stray.tar), datasets (metadata.csv), folders (even): pass --layout"
    with pytest.raises(ValueError, match=re.escape(expected)):
        encode(tmp_path / "latents", shard_settings)
    layouts: dict[Any, tuple[str, ...]] = {"folders": ("even", "odd"), "tars": ("0",)}
    for layout, names in layouts.items():
        config = LatentsConfig(output=tmp_path, layout=layout, **shard_settings)
        assert latents.open_pictures(config).classes == names


def write_tars(root: Path, folder: Path, names: list[str], labels: list[int]) -> None:
    """Two tars of the same pictures in the same order."""
    root.mkdir()
    for number in range(2):
        with tarfile.open(root / f"{number}.tar", "w") as archive:
            for index in range(6 * number, 6 * number + 6):
                archive.add(folder / names[index], f"{index:02d}.png")
                member = tarfile.TarInfo(f"{index:02d}.cls")
                member.size = 1
                archive.addfile(member, io.BytesIO(str(labels[index]).encode()))


def test_tars_and_folders_give_the_same_moments(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    moments, labels, names = loaded(encode(tmp_path / "folder", shard_settings))
    write_tars(tmp_path / "tars", shard_settings["data_path"], names, labels)
    (tmp_path / "names.txt").write_text("even\nodd\n")
    wanted = {"data_path": tmp_path / "tars", "classes": tmp_path / "names.txt"}
    packed = loaded(encode(tmp_path / "packed", shard_settings | wanted))
    torch.testing.assert_close(packed[0], moments, rtol=0, atol=0)
    assert packed[1] == labels
    assert packed[2][0] == "0.tar/00.png"
    assert read_index(tmp_path / "packed")[0].classes == ("even", "odd")


def test_a_hugging_face_folder_gives_the_same_moments(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra hf")
    moments, labels, names = loaded(encode(tmp_path / "folder", shard_settings))
    lines = [
        json.dumps({"file_name": name, "label": label, "order": index})
        for index, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    (shard_settings["data_path"] / "metadata.jsonl").write_text("\n".join(lines))
    found = loaded(encode(tmp_path / "hf", shard_settings | {"layout": "datasets"}))
    places = [names.index(name) for name in found[2]]
    assert sorted(places) == list(range(12))
    torch.testing.assert_close(found[0], moments[places], rtol=1e-5, atol=1e-5)
    assert found[1] == [labels[place] for place in places]


def test_refuses_bad_requests_in_one_line(
    refused: Callable[..., str], shard_settings: dict[str, Any], small_vae: Path, tmp_path: Path
) -> None:
    output = encode(tmp_path / "latents", shard_settings)
    before = contents(output)

    def refusal(**changes: Any) -> str:
        return refused("data", "latents", *flags_of(shard_settings | {"output": output} | changes))

    assert "another configuration: dtype is float32, not float16" in refusal(dtype="float16")
    assert "shard_size is 5, not 4" in refusal(shard_size=4)
    assert "vae_sha256 is " in refusal(vae="bundled")
    assert contents(output) == before
    assert "multiples of 8" in refusal(image_size=36)
    assert "--hold-out of at least 2, got 1" in refusal(hold_out=1)
    assert "--hold-out of at most the 12 pictures, got 13" in refusal(hold_out=13)
    assert "--batch-size of at least 1" in refusal(batch_size=0)
    assert "--classes names the classes of tar files" in refusal(classes=small_vae / "config.json")
    assert "No such file or directory: 'absent.txt'" in refusal(classes="absent.txt")
    assert "no folder" in refusal(data_path=tmp_path / "absent")
    assert "new or empty folder" in refusal(output=shard_settings["data_path"])
    damaged = shard_settings["data_path"] / "even" / "zz.png"
    damaged.write_bytes(b"no picture")
    for workers in (0, 1):
        output = tmp_path / f"damaged-{workers}"
        assert refusal(workers=workers).startswith(f"error: cannot read {damaged}")


def test_moments_that_are_not_finite_are_refused_by_name(
    shard_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = LatentCodec.moments
    monkeypatch.setattr(LatentCodec, "moments", lambda *a: [part * 1e6 for part in moments(*a)])
    with pytest.raises(ValueError, match=r"the moments of even/.*\.png are not finite as torch\.float16"):
        encode(tmp_path / "latents", shard_settings | {"dtype": "float16"})


@pytest.mark.usefixtures("small_presets")
def test_trains_on_shards(
    command: Callable[..., None],
    refused: Callable[..., str],
    shard_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    output = encode(tmp_path / "latents", shard_settings | {"hold_out": 4})
    looks = ("--steps", 2, "--log-every", 1, "--validate-every", 2, "--preview-every", "none")
    flags = ("--model", "IPTV2-Ti-16", "--batch-size", 2, "--workers", 0, *looks, "--data-path", output)
    size = ("--image-size", SIZE)
    command("train", *flags, *size, "--output", tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert records[0]["simple"] == pytest.approx(1.0, abs=0.4)  # predicts 0 for unit noise
    held_out = [record["validation/held_out_loss"] for record in records if "validation/held_out_loss" in record]
    assert held_out == [pytest.approx(1.0, abs=0.2)]
    checkpoint = tmp_path / "run" / "checkpoint-00000002"
    assert json.loads((checkpoint / "class_names.json").read_text()) == ["even", "odd"]
    assert json.loads((checkpoint / "run.json").read_text())["info"]["vae"] == shard_settings["vae"]
    elsewhere = ("--output", tmp_path / "other")
    assert f"--image-size {SIZE}, of the latents, got 256" in refused("train", *flags, *elsewhere)
    message = refused("train", *flags, *size, *elsewhere, "--vae", BUNDLED_VAE)
    assert f"made by the VAE {shard_settings['vae']}, not " in message
    assert "scale 0.18215, not 1.0" in message
    moved = shutil.copytree(shard_settings["vae"], tmp_path / "moved")
    rename = json.loads((output / "index.json").read_text()) | {"vae": str(tmp_path / "gone")}
    (output / "index.json").write_text(json.dumps(rename))
    message = refused("train", *flags, *size, *elsewhere)
    assert f"name their VAE, {tmp_path / 'gone'}, which --vae replaces: expected a VAE's folder" in message
    again = ("--output", tmp_path / "run", "--resume", "--vae", moved)
    command("train", *flags, *size, *again, "--steps", 3)
    checkpoint = tmp_path / "run" / "checkpoint-00000003"
    info = json.loads((checkpoint / "run.json").read_text())["info"]
    assert (info["vae"], info["recipe"]["vae"]) == (str(moved), shard_settings["vae"])
    (output / "shard-00001.safetensors").rename(tmp_path / "elsewhere")
    assert "1 of 3 shards are missing" in refused("train", *flags, *size, *elsewhere)
    (output / "index.json").rename(output / ".header.json")
    assert "are unfinished" in refused("train", *flags, *size, *elsewhere)
    assert not (tmp_path / "other").exists()
