"""Sources of training examples: sampled latents, mirrored pictures, and the file the former come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from iptv2_diffusion.data.image_folder import ImageFolder
from iptv2_diffusion.data.sources import CLASS_NAMES, LatentMoments, Pictures, load_moments

EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_moments(dtype: torch.dtype = torch.float32) -> LatentMoments:
    """Six rows of (2, 3, 5) whose means and deviations all differ."""
    mean = torch.linspace(-4, 4, 180).view(6, 2, 3, 5)
    std = torch.linspace(0.1, 2, 180).view(6, 2, 3, 5).flip(-1)
    return LatentMoments(mean.to(dtype), std.to(dtype), torch.tensor([3, 1, 4, 1, 5, 9]))


def test_latents_have_the_mean_and_deviation_of_their_row() -> None:
    moments, count = make_moments(), 4000
    generator = seeded()
    latents = torch.stack([moments.example(4, generator)["latents"] for _ in range(count)])
    standard = (latents - moments.mean[4]) / moments.std[4]
    assert standard.mean(0).abs().max() < 5 / count**0.5
    assert (standard.std(0) - 1).abs().max() < 5 / (2 * count) ** 0.5
    between = torch.corrcoef(standard.flatten(1).T).fill_diagonal_(0)
    assert between.abs().max() < 5 / count**0.5  # every element has noise of its own


def test_without_deviation_latents_are_the_mean() -> None:
    moments = make_moments()
    moments = LatentMoments(moments.mean, torch.zeros_like(moments.std), moments.labels)
    for index in range(6):
        example = moments.example(index, seeded())
        assert sorted(example) == ["label", "latents"]
        torch.testing.assert_close(example["latents"], moments.mean[index], **EXACT)
        torch.testing.assert_close(example["label"], torch.tensor([3, 1, 4, 1, 5, 9][index]), **EXACT)


def test_of_several_labels_every_visit_draws_one() -> None:
    moments = make_moments()
    several = LatentMoments(moments.mean, moments.std, torch.tensor([[i, 10 + i] for i in range(6)]))
    generator, count = seeded(), 2000
    drawn = [int(several.example(4, generator)["label"]) for _ in range(count)]
    assert set(drawn) == {4, 14}
    assert drawn.count(4) / count == pytest.approx(0.5, abs=5 * 0.5 / count**0.5)
    assert several.example(4, seeded(1))["latents"].equal(moments.example(4, seeded(1))["latents"])
    assert several.part(torch.arange(6) > 3).labels.tolist() == [[4, 14], [5, 15]]


def test_the_generator_is_the_only_randomness() -> None:
    moments, state = make_moments(), torch.get_rng_state()
    first = moments.example(2, seeded(1))["latents"]
    assert torch.get_rng_state().equal(state)
    torch.testing.assert_close(moments.example(2, seeded(1))["latents"], first, **EXACT)
    assert not moments.example(2, seeded(2))["latents"].equal(first)
    generator = seeded(1)
    visits = [moments.example(2, generator)["latents"] for _ in range(2)]
    torch.testing.assert_close(visits[0], first, **EXACT)
    assert not visits[1].equal(first)


def test_moments_in_half_precision_give_float32() -> None:
    latents = make_moments(torch.float16).example(1, seeded())["latents"]
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, make_moments().example(1, seeded())["latents"], rtol=0, atol=5e-3)


def test_a_part_holds_the_marked_rows() -> None:
    moments = make_moments()
    mask = torch.tensor([True, False, True, False, False, True])
    part, rest = moments.part(mask), moments.part(~mask)
    assert (len(moments), len(part), len(rest)) == (6, 3, 3)
    assert (part.labels.tolist(), rest.labels.tolist()) == ([3, 4, 9], [1, 1, 5])
    torch.testing.assert_close(part.mean, moments.mean[[0, 2, 5]], **EXACT)
    torch.testing.assert_close(part.std, moments.std[[0, 2, 5]], **EXACT)
    torch.testing.assert_close(part.example(1, seeded()), moments.example(2, seeded()), **EXACT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    moments = make_moments(torch.float16)
    path = tmp_path / "latents.safetensors"
    save_file({"mean": moments.mean, "std": moments.std, "labels": moments.labels.to(torch.uint8)}, path)
    return path


def test_moments_are_read_from_their_file(file: Path) -> None:
    moments, expected = load_moments(file), make_moments(torch.float16)
    for name in ("mean", "std", "labels"):
        torch.testing.assert_close(getattr(moments, name), getattr(expected, name), **EXACT)
    assert moments.labels.dtype == torch.int64
    assert moments.class_names is None


def test_names_of_classes_and_several_labels_are_read(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 1], [0, 2], [3, 4], [3, 4], [0, 1], [0, 2]])
    moments, path = make_moments(torch.float16), tmp_path / "named.safetensors"
    tensors = {"mean": moments.mean, "std": moments.std, "labels": labels.to(torch.uint8)}
    names = ["Animals", "bird", "bug", "Flags", "flag"]
    save_file(tensors, path, metadata={CLASS_NAMES: json.dumps(names)})
    found = load_moments(path)
    assert found.labels.equal(labels)
    assert found.class_names == names == found.part(torch.arange(6) > 3).class_names


def test_labels_of_other_pictures_are_refused(tmp_path: Path) -> None:
    moments, path = make_moments(torch.float16), tmp_path / "odd.safetensors"
    save_file({"mean": moments.mean, "std": moments.std, "labels": torch.zeros(5, 2, dtype=torch.uint8)}, path)
    with pytest.raises(ValueError, match=r"labels \(N,\) or \(N, K\) .* got .*\(5, 2\)"):
        load_moments(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected latent moments .*absent\.safetensors: No such file"):
        load_moments(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("size", [0, 4, 40, -1])
def test_a_truncated_file_is_named(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"expected latent moments .*latents\.safetensors: "):
        load_moments(file)


@pytest.mark.parametrize("missing", ["mean", "std", "labels"])
def test_a_file_of_other_tensors_is_refused_with_the_name_it_lacks(tmp_path: Path, missing: str) -> None:
    tensors = {name: torch.zeros(2) for name in {"mean", "std", "labels", "weight"} - {missing}}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=rf"expected latent moments .*other\.safetensors: '{missing}'"):
        load_moments(tmp_path / "other.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """One random picture, 6 pixels wide and 4 high, in each of two classes."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "picture.png")
    return ImageFolder(tmp_path)


def test_half_of_the_pictures_is_mirrored(folder: ImageFolder) -> None:
    pictures, (pixels, _) = Pictures(folder, flip=True), folder[1]
    mirrored = torch.stack([pixels[:, :, 5 - column] for column in range(6)], dim=2)
    examples = [pictures.example(1, seeded(seed)) for seed in range(400)]
    flips = [example["pixels"].equal(mirrored) for example in examples]
    assert all(flip or example["pixels"].equal(pixels) for flip, example in zip(flips, examples, strict=True))
    assert abs(sum(flips) - 200) < 50  # 5 standard deviations
    assert flips == [pictures.example(1, seeded(seed))["pixels"].equal(mirrored) for seed in range(400)]
    assert all(example["pixels"].dtype == torch.uint8 for example in examples)


def test_flips_come_from_the_generator_alone(folder: ImageFolder) -> None:
    state = torch.get_rng_state()
    Pictures(folder, flip=True).example(0, seeded())
    assert torch.get_rng_state().equal(state)


def test_pictures_stay_as_they_are_unless_asked(folder: ImageFolder) -> None:
    pictures = Pictures(folder, flip=False)
    assert len(pictures) == 2
    for index in (0, 1):
        for seed in range(20):
            example = pictures.example(index, seeded(seed))
            assert sorted(example) == ["label", "pixels"]
            torch.testing.assert_close(example["pixels"], folder[index][0], **EXACT)
            torch.testing.assert_close(example["label"], torch.tensor(index), **EXACT)
