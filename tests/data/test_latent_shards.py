"""Training examples from shards of moments, and their verification."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from encoded import HEADER, LABELS, MOMENTS, tensors_of, write_shards
from torch.utils.data import DataLoader, Dataset

from iptv2_diffusion.data.latent_format import begin, finish, shard_path, write_shard
from iptv2_diffusion.data.latent_shards import LatentShards, check_latents, open_latents

EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
FLIP = 0.5  # the share that is mirrored


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def shards(tmp_path: Path) -> LatentShards:
    write_shards(tmp_path / "latents")
    return open_latents(tmp_path / "latents", mirror=True)[0]


def test_an_example_is_the_mean_plus_the_generators_noise(shards: LatentShards) -> None:
    """Of either view, which the first draw chooses as `sources.Pictures` does."""
    views = []
    for seed in range(40):
        index = seed % 7
        generator = seeded(seed)
        view = int(torch.rand((), generator=generator) < FLIP)
        mean, std = MOMENTS[index, view]
        expected = mean + std * torch.randn(mean.shape, generator=generator)
        example = shards.example(index, seeded(seed))
        torch.testing.assert_close(example["latents"], expected, **EXACT)
        torch.testing.assert_close(example["label"], torch.tensor(LABELS[index]), **EXACT)
        views.append(view)
    assert 10 < sum(views) < 30


def test_many_draws_have_the_posteriors_moments(tmp_path: Path) -> None:
    write_shards(tmp_path)
    shards, count, generator = open_latents(tmp_path, mirror=False)[0], 4000, seeded()
    latents = torch.stack([shards.example(4, generator)["latents"] for _ in range(count)])
    mean, std = MOMENTS[4, 0]
    standard = (latents - mean) / std
    assert standard.mean(0).abs().max() < 5 / count**0.5
    assert (standard.std(0) - 1).abs().max() < 5 / (2 * count) ** 0.5


def test_the_order_of_visits_does_not_matter(shards: LatentShards) -> None:
    state = torch.get_rng_state()
    first = {index: shards.example(index, seeded(index)) for index in range(7)}
    assert torch.get_rng_state().equal(state)
    for index in (6, 0, 3, 3, 1, 5, 2, 4):
        torch.testing.assert_close(shards.example(index, seeded(index)), first[index], **EXACT)


class _Visits(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, shards: LatentShards) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.shards.example(index, seeded(index))


def test_worker_processes_and_copies_read_the_same(shards: LatentShards) -> None:
    expected = [shards.example(index, seeded(index)) for index in range(7)]  # the shards are open when workers fork
    copy = pickle.loads(pickle.dumps(shards))
    for visits in (
        DataLoader(_Visits(shards), batch_size=None, num_workers=2),
        map(_Visits(copy).__getitem__, range(7)),
    ):
        for index, example in zip(range(7), visits, strict=True):
            torch.testing.assert_close(example, expected[index], **EXACT)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of memory maps")
def test_shards_are_memory_mapped_when_they_are_visited(shards: LatentShards) -> None:
    def mapped() -> set[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {line.rsplit("/", 1)[1] for line in lines if str(shards._root) in line}

    assert mapped() == set()
    shards.example(4, seeded())
    assert mapped() == {"shard-00001.safetensors"}


def test_half_precision_gives_float32(tmp_path: Path) -> None:
    write_shards(tmp_path, dtype="float16", flip=False)
    example = open_latents(tmp_path, mirror=False)[0].example(3, seeded())
    mean, std = MOMENTS[3, 0].half().float()
    assert example["latents"].dtype == torch.float32
    torch.testing.assert_close(example["latents"], mean + std * torch.randn(mean.shape, generator=seeded()), **EXACT)


@pytest.mark.parametrize(("every", "kept"), [(2, [1, 3, 5]), (3, [2, 5]), (7, [6]), (8, [])])
def test_every_nth_picture_is_held_out(tmp_path: Path, every: int, kept: list[int]) -> None:
    write_shards(tmp_path, hold_out=every)
    training, held_out = open_latents(tmp_path, mirror=True)
    assert held_out is not None
    rest = [index for index in range(7) if index not in kept]
    assert (len(training), len(held_out)) == (len(rest), len(kept))
    for part, rows in ((training, rest), (held_out, kept)):
        assert [part.example(i, seeded())["label"].item() for i in range(len(part))] == [LABELS[row] for row in rows]
    for place, row in enumerate(kept):
        mean, std = MOMENTS[row, 0]  # never the mirror image
        expected = mean + std * torch.randn(mean.shape, generator=seeded(place))
        torch.testing.assert_close(held_out.example(place, seeded(place))["latents"], expected, **EXACT)


def test_mirror_images_that_are_not_there_and_missing_shards_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, flip=False)
    with pytest.raises(ValueError, match="without mirror images: train with --no-flip"):
        open_latents(tmp_path, mirror=True)
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(ValueError, match=r"1 of 3 shards are missing, the first is .*shard-00001"):
        open_latents(tmp_path, mirror=False)
    with pytest.raises(ValueError, match=r"expected latents .* described in .*index\.json"):
        open_latents(tmp_path / "absent", mirror=False)


def test_a_shard_that_was_cut_short_is_named_when_it_is_visited(shards: LatentShards) -> None:
    path = shard_path(shards._root, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert shards.example(5, seeded())["label"] == 2
    with pytest.raises(ValueError, match=r"cannot read .*shard-00002\.safetensors as a shard"):
        shards.example(6, seeded())


def test_whole_shards_pass(tmp_path: Path) -> None:
    header = write_shards(tmp_path)
    assert check_latents(tmp_path) == header


def damaged(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged(lambda content: content.__setitem__(-1, content[-1] ^ 1)), "shard-00001.*its hash is not that of the"),
        (
            damaged(lambda content: content.__setitem__(500, content[500] ^ 1)),
            "shard-00001.*its hash is not that of th",
        ),
        (damaged(lambda content: content.pop()), "cannot read .*shard-00001"),
        (damaged(lambda content: content.clear()), "cannot read .*shard-00001"),
        (Path.unlink, "cannot read .*shard-00001.*[Nn]o such file"),
        (
            lambda path: path.write_bytes(path.with_name("shard-00000.safetensors").read_bytes()),
            "shard-00001.*its hash",
        ),
    ],
    ids=["bit of a name", "bit of a moment", "cut", "empty", "missing", "another's"],
)
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    write_shards(tmp_path)
    damage(shard_path(tmp_path, 1))
    with pytest.raises(ValueError, match=f"1 problems with the latents in .*{said}"):
        check_latents(tmp_path)


def test_every_bit_of_a_shard_counts(tmp_path: Path) -> None:
    """Also those of its header; a space that pads it may not become another, either."""
    write_shards(tmp_path, shard_size=7, flip=False, shape=(2, 3, 5))
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="1 problems"):
            check_latents(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("moments", lambda moments: moments[:, :1], r"expected moments \(3, 2, 2, 2, 3, 5\) float32"),
        ("moments", torch.Tensor.half, "got .* torch.float16"),
        ("moments", lambda moments: moments.index_fill(0, torch.tensor(1), torch.nan), "expected finite means"),
        ("moments", torch.Tensor.neg, "deviations of at least 0"),
        ("labels", lambda labels: labels + 1, "expected 3 labels from 0 to 2"),
        ("labels", lambda labels: labels - 3, "expected 3 labels from 0 to 2"),
        ("names", lambda names: names[:-16], "expected 3 names, got 2"),
        ("extra", lambda _: torch.zeros(1), "expected labels, moments and names, got extra, labels"),
    ],
)
def test_what_was_written_wrongly_is_found(tmp_path: Path, name: str, change: Callable, said: str) -> None:
    begin(tmp_path, HEADER)
    for shard in range(3):
        tensors = tensors_of(HEADER, shard)
        if shard == 0:
            tensors[name] = change(tensors.get(name)).contiguous()
        write_shard(tmp_path, HEADER, shard, tensors)
    finish(tmp_path, HEADER)
    with pytest.raises(ValueError, match=f"1 problems .*shard-00000.*{said}"):
        check_latents(tmp_path)


def test_names_and_labels_are_those_of_the_header(tmp_path: Path) -> None:
    write_shards(tmp_path, content="0" * 64)
    with pytest.raises(ValueError, match="names and labels are not those that the index was made of"):
        check_latents(tmp_path)


def test_an_index_that_was_edited_no_longer_fits_its_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    index = tmp_path / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text("utf-8")) | {"scale": 1.0}))
    with pytest.raises(ValueError, match="3 problems"):
        check_latents(tmp_path)
    assert replace(HEADER, scale=1.0).sha256 != HEADER.sha256
