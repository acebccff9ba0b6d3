"""The same images from a folder and from .npz files, stored and deflated; statistics shared among processes."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import forked
import numpy as np
import pytest
import torch
from PIL import Image

from iptv2_diffusion.cli import image_statistics
from iptv2_diffusion.cli.drawing import save_png
from iptv2_diffusion.cli.image_sets import ImageArray, ImageSet, PictureFolder, open_images, write_images
from iptv2_diffusion.cli.image_statistics import measure, pixels_sha256, spaced
from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, Extractor

WIDTH = 20


def toy_features(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean colour, and logits out of the first pixels."""
    return {FEATURES: images.float().mean((2, 3)), LOGITS: images[:, :, 0, :4].float().flatten(1) / 32}


TOY = Extractor(
    name="toy",
    weights_sha256="0" * 64,
    dimensions={FEATURES: 3, LOGITS: 12},
    device=torch.device("cpu"),
    extract=toy_features,
)


@pytest.fixture(scope="module")
def pixels(real_images: dict[str, torch.Tensor]) -> np.ndarray:
    """11 parts of photographs, (11, 16, 20, 3)."""
    photograph = real_images["coffee"].permute(1, 2, 0).numpy()
    return np.stack([photograph[30 * i : 30 * i + 16, 40 * i : 40 * i + WIDTH] for i in range(11)])


@pytest.fixture(scope="module")
def sets(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    np.savez(root / "stored.npz", labels=np.arange(11), arr_0=pixels)
    np.savez_compressed(root / "deflated.npz", arr_0=pixels)
    for index, picture in enumerate(pixels):
        file = root / "folder" / f"{index // 5}" / f"{index:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    save_png(pixels[0], root / "folder" / "grid.png", {})
    return {name: root / name for name in ("stored.npz", "deflated.npz", "folder")}


@pytest.mark.parametrize("name", ["stored.npz", "deflated.npz", "folder"])
@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 9), (10, 11), (4, 4)])
def test_batches(name: str, start: int, stop: int, sets: dict[str, Path], pixels: np.ndarray) -> None:
    images = open_images(sets[name])
    batches = list(images.batches(start, stop, 4))
    assert (images.count, images.side_lengths) == (11, (16, WIDTH))
    assert [len(batch) for batch in batches] == [4] * ((stop - start) // 4) + [(stop - start) % 4] * (start < stop)
    if batches:
        np.testing.assert_array_equal(np.concatenate(batches), pixels[start:stop])


def test_a_folder_may_hold_an_array_in_place_of_pictures(pixels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", arr_0=pixels)
    save_png(pixels[0], tmp_path / "grid.png", {})
    assert open_images(tmp_path).path == tmp_path / "samples.npz"
    Image.fromarray(pixels[0]).save(tmp_path / "000000.png")
    assert open_images(tmp_path).path == tmp_path


def test_only_our_own_overview_is_no_picture(pixels: np.ndarray, tmp_path: Path) -> None:
    for name in ("000000.png", "grid.png", "class/grid.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[0]).save(tmp_path / name)
    assert open_images(tmp_path).count == 3
    for name in ("grid.png", "class/grid.png"):
        save_png(pixels[0], tmp_path / name, {})
    assert open_images(tmp_path).count == 2


def test_only_chosen_pictures_are_read(
    sets: dict[str, Path], pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, read = open_images(sets["folder"]), PictureFolder._pixels
    opened: list[str] = []
    monkeypatch.setattr(PictureFolder, "_pixels", lambda self, file: opened.append(file) or read(self, file))
    found = list(images.chosen([1, 4, 9], 2))
    np.testing.assert_array_equal(np.concatenate(found), pixels[[1, 4, 9]])
    assert [len(batch) for batch in found] == [2, 1]
    assert len(opened) == 3


def test_one_hash_for_the_same_pixels(sets: dict[str, Path], pixels: np.ndarray, tmp_path: Path) -> None:
    hashes = {pixels_sha256(open_images(path), batch) for path, batch in zip(sets.values(), (1, 4, 11), strict=True)}
    assert len(hashes) == 1
    for name, others in (("order", pixels[::-1]), ("shape", pixels.reshape(11, WIDTH, 16, 3)), ("part", pixels[:10])):
        np.savez(tmp_path / f"{name}.npz", arr_0=others)
        assert pixels_sha256(ImageArray(tmp_path / f"{name}.npz"), 4) not in hashes


def test_pictures_are_cropped_as_adm_does(emoji_folder: Path, real_images: dict[str, torch.Tensor]) -> None:
    """The emoji, 256 pixels a side and transparent, become what models are trained on."""
    images = PictureFolder(emoji_folder, 128)
    (batch,) = images.batches(0, images.count, 64)
    known = {picture.permute(1, 2, 0).numpy().tobytes() for picture in real_images.values()}
    assert images.side_lengths == (128, 128)
    assert sum(picture.tobytes() in known for picture in batch) == images.count


def test_written_images_are_read_again(sets: dict[str, Path], pixels: np.ndarray, tmp_path: Path) -> None:
    chosen = spaced(11, 4)
    assert chosen == [0, 2, 5, 8]
    assert spaced(3, 10) == spaced(3, None) == [0, 1, 2]
    with ZipFile(tmp_path / "part.npz", "w") as archive:
        write_images(archive, open_images(sets["folder"]), chosen)
    np.testing.assert_array_equal(np.load(tmp_path / "part.npz")["arr_0"], pixels[chosen])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, r"uint8 \(N, H, W, 3\), got float64 \(2, 4, 4, 3\)"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, r"got uint8 \(2, 3, 4, 4\)"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, r"got uint8 \(0, 4, 4, 3\)"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, r"images as arr_0 in .*, it holds images\.npy"),
    ],
)
def test_arrays_that_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        open_images(tmp_path / "set.npz")


def test_what_is_no_set_is_refused(sets: dict[str, Path], pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match=r"expected an \.npz file, .*text\.npz is not one"):
        open_images(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError, match=r"expected a folder of pictures or an \.npz file"):
        open_images(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected pictures in .*empty, found none"):
        open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="--size crops the pictures of folders"):
        open_images(sets["stored.npz"], 8)
    for name, shape in (("a.png", (8, 9, 3)), ("b.png", (9, 8, 3))):
        Image.fromarray(pixels[0, : shape[0], : shape[1]]).save(tmp_path / "empty" / name)
    with pytest.raises(ValueError, match=r"of one size, .*a\.png has 9x8 pixels and .*b\.png 8x9; --size"):
        list(open_images(tmp_path / "empty").batches(0, 2, 2))


def test_a_damaged_archive_is_named(sets: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(sets["deflated.npz"].read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz is damaged"):
        list(open_images(tmp_path / "damaged.npz").batches(0, 11, 4))


def measured(images: ImageSet, cache: Path | None, **options: int) -> image_statistics.Statistics:
    sha256 = pixels_sha256(images, 4)
    return measure(images, TOY, sha256=sha256, keep=options.get("keep"), batch_size=4, cache=cache)


def test_statistics(sets: dict[str, Path], pixels: np.ndarray) -> None:
    found = measured(open_images(sets["folder"]), None, keep=4)
    colours = pixels.mean((1, 2))
    np.testing.assert_allclose(found.features, colours[[0, 2, 5, 8]], rtol=1e-6)
    np.testing.assert_allclose(found.gaussians[FEATURES].mean, colours.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.gaussians[FEATURES].covariance, np.cov(colours, rowvar=False), rtol=1e-5)
    p = torch.softmax(torch.from_numpy(pixels[:, 0, :4]).permute(0, 2, 1).flatten(1).double() / 32, 1).numpy()
    score = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert found.score == pytest.approx((score, 0), rel=1e-6)


def test_the_cache_knows_content_not_names(
    sets: dict[str, Path], pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    extract = image_statistics._extract
    monkeypatch.setattr(image_statistics, "_extract", lambda *args: calls.append(1) or extract(*args))
    np.savez(tmp_path / "set.npz", arr_0=pixels)
    first = measured(open_images(tmp_path / "set.npz"), tmp_path / "cache")
    again = measured(open_images(sets["folder"]), tmp_path / "cache")
    assert len(calls) == 1
    np.testing.assert_array_equal(first.gaussians[FEATURES].covariance, again.gaussians[FEATURES].covariance)
    np.testing.assert_array_equal(first.features, again.features)
    assert (first.score, set(first.gaussians)) == (again.score, set(again.gaussians))
    changed = pixels.copy()
    changed[3, 0, 0, 0] ^= 1
    np.savez(tmp_path / "set.npz", arr_0=changed)
    assert (measured(open_images(tmp_path / "set.npz"), tmp_path / "cache").features != first.features).any()
    assert len(calls) == 2
    measured(open_images(tmp_path / "set.npz"), tmp_path / "cache", keep=4)
    assert len(calls) == 3  # fewer features are kept
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


def test_two_processes_find_what_one_finds(sets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys, test_image_sets; test_image_sets.measure_and_write(*sys.argv[1:])")
    forked.run(tmp_path / "processes", tmp_path / "script.py", sets["deflated.npz"], tmp_path, ranks=2)
    whole = written(open_images(sets["folder"]))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["sha256"] == whole["sha256"]
        for name in ("mean", "covariance", "features", "score"):
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-12, err_msg=name)


def measure_and_write(path: str, folder: str) -> None:
    """What each of several processes does."""
    from accelerate import PartialState

    state: Any = PartialState(cpu=True)
    assert state.num_processes == 2
    (Path(folder) / f"{state.process_index}.json").write_text(json.dumps(written(open_images(Path(path)))))
    state.destroy_process_group()


def written(images: ImageSet) -> dict[str, Any]:
    found = measured(images, None, keep=5)
    fit = found.gaussians[FEATURES]
    return {
        "sha256": pixels_sha256(images, 3),
        "mean": fit.mean.tolist(),
        "covariance": fit.covariance.tolist(),
        "features": found.features.tolist(),
        "score": found.score,
    }
