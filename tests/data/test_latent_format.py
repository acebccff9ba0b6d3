"""The files of latent shards: what is in them, when they count as done, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from encoded import HEADER, LABELS, MOMENTS, NAMES, tensors_of, write_shards
from safetensors.torch import load_file

from iptv2_diffusion.data.latent_format import (
    begin,
    continued,
    finish,
    is_latent_folder,
    read_index,
    shard_path,
    unfinished_shards,
    unpack_names,
    write_shard,
)


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_shards_hold_what_was_written(tmp_path: Path) -> None:
    header = write_shards(tmp_path / "latents")
    found = sorted(path.name for path in (tmp_path / "latents").iterdir())
    assert found == ["index.json", *(f"shard-0000{n}.safetensors" for n in range(3))]
    shards = [load_file(shard_path(tmp_path / "latents", number)) for number in range(3)]
    assert [len(shard["labels"]) for shard in shards] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([shard["moments"] for shard in shards]), MOMENTS, rtol=0, atol=0)
    assert torch.cat([shard["labels"] for shard in shards]).tolist() == list(LABELS)
    assert [name for shard in shards for name in unpack_names(shard["names"])] == list(NAMES)
    assert read_index(tmp_path / "latents")[0] == header == HEADER
    assert is_latent_folder(tmp_path / "latents")
    assert not is_latent_folder(tmp_path)


def test_the_order_of_writing_and_a_second_time_change_no_byte(tmp_path: Path) -> None:
    write_shards(tmp_path / "one")
    begin(tmp_path / "other", HEADER)
    assert is_latent_folder(tmp_path / "other")
    with pytest.raises(ValueError, match="are unfinished"):
        read_index(tmp_path / "other")
    for shard in (2, 0):
        write_shard(tmp_path / "other", HEADER, shard, tensors_of(HEADER, shard))
    assert unfinished_shards(tmp_path / "other", HEADER) == [1]
    begin(tmp_path / "other", replace(HEADER, vae="the/same elsewhere"))
    write_shard(tmp_path / "other", HEADER, 1, tensors_of(HEADER, 1))
    finish(tmp_path / "other", HEADER)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    begin(tmp_path / "other", HEADER)
    assert unfinished_shards(tmp_path / "other", HEADER) == []


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_shard_that_is_not_whole_is_to_be_written_again(tmp_path: Path, size: int) -> None:
    write_shards(tmp_path)
    path = shard_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:size])
    assert unfinished_shards(tmp_path, HEADER) == [1]
    path.unlink()
    assert unfinished_shards(tmp_path, HEADER) == [1]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("image_size", 256, "image_size is 40, not 256"),
        ("vae_sha256", "f" * 64, "vae_sha256 is 000"),
        ("scale", 1.0, "scale is 0.18215, not 1.0"),
        ("flip", False, "flip is True, not False"),
        ("dtype", "float16", "dtype is float32, not float16"),
        ("shard_size", 4, "shard_size is 3, not 4"),
        ("content", "1" * 64, "content is "),
        ("classes", ("a", "b", "d"), r"classes is \('a', 'b', 'c'\), not \('a', 'b', 'd'\)"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused(tmp_path: Path, field: str, value: object, said: str, finished: bool) -> None:
    if finished:
        write_shards(tmp_path)
    else:
        begin(tmp_path, HEADER)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"latents of another configuration: {said}"):
        begin(tmp_path, replace(HEADER, **{field: value}))
    assert contents(tmp_path) == before


def test_a_shard_of_another_configuration_does_not_count(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert unfinished_shards(tmp_path, replace(HEADER, scale=1.0)) == [0, 1, 2]
    assert unfinished_shards(tmp_path, replace(HEADER, vae="elsewhere", hold_out=10)) == []


def test_another_share_is_held_out_without_touching_a_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, hold_out=2)
    shards = contents(tmp_path)
    begin(tmp_path, HEADER)
    finish(tmp_path, continued(tmp_path, HEADER))
    assert read_index(tmp_path)[0] == HEADER
    assert contents(tmp_path) == shards | {"index.json": (tmp_path / "index.json").read_bytes()}
    assert (tmp_path / "index.json").read_bytes() != shards["index.json"]


def test_older_shards_whose_hash_covers_what_is_held_out(tmp_path: Path) -> None:
    """They stay what they are, and fit what their training runs recorded; another share can be held out of them, too."""
    write_shards(tmp_path, hold_out=10, hashed_hold_out=10)
    path = tmp_path / "index.json"
    older = json.loads(path.read_text("utf-8"))
    del older["hashed_hold_out"]
    path.write_text(json.dumps(older))
    header, _ = read_index(tmp_path)
    assert header.sha256 == "6655540d9aaa84d1f86587b79c26961792aa0539a2a4e0a4736fd16c97eef698"
    wanted = replace(HEADER, hold_out=3)
    assert unfinished_shards(tmp_path, wanted) == [0, 1, 2]
    begin(tmp_path, wanted)
    assert unfinished_shards(tmp_path, continued(tmp_path, wanted)) == []
    finish(tmp_path, continued(tmp_path, wanted))
    found, _ = read_index(tmp_path)
    assert (found.hold_out, found.sha256) == (3, header.sha256)


def test_other_things_in_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for root in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="expected a new or empty folder for latents"):
            begin(root, HEADER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "its format is iptv2-latents, version 2"),
        ({"format": "tiles"}, "its format is tiles"),
        ({"scale": None}, "'scale'"),
        ({"shards": None}, "its entry 'shards' is missing"),
        ({"shards": []}, "expected 3 shards of 7 pictures"),
    ],
)
def test_a_strange_index_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    write_shards(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text("utf-8")) | change
    index = {name: value for name, value in index.items() if value is not None or "hold_out" in name}
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=said):
        read_index(tmp_path)
