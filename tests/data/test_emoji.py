import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iptv2_diffusion.data.emoji import CATEGORIES, composite_on_white, held_out_mask, load_emoji


def test_held_out_is_every_tenth() -> None:
    assert held_out_mask(31).nonzero().flatten().tolist() == [9, 19, 29]
    assert not held_out_mask(9).any()


def test_transparency_becomes_white_before_reducing() -> None:
    """Black under full transparency must not darken the edge: a 2x1 block of opaque red and clear black is pink."""
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 0, 0]]], np.uint8).repeat(2, axis=0)
    reduced = composite_on_white(Image.fromarray(pixels), size=1)
    np.testing.assert_array_equal(reduced, [[[255, 128, 128]]])


def test_half_transparent_pixels_are_blended() -> None:
    reduced = composite_on_white(Image.new("RGBA", (4, 4), (0, 100, 200, 51)), size=4)
    np.testing.assert_array_equal(reduced[0, 0], [204, 224, 244])  # 255 + (value - 255) / 5


def test_loads_the_bundled_dozen(emoji_folder: Path) -> None:
    emoji = load_emoji(emoji_folder, size=32)
    assert emoji.images.shape == (12, 3, 32, 32)
    assert emoji.images.dtype == torch.uint8
    assert emoji.names[0] == "grinning face"
    assert set(emoji.labels.tolist()) == set(range(len(CATEGORIES)))
    assert emoji.held_out.nonzero().flatten().tolist() == [9]
    assert emoji.class_names[: len(CATEGORIES)] == CATEGORIES
    assert [emoji.class_names[label] for label in emoji.sublabels[:2]] == ["face-smiling", "hand-fingers-closed"]
    torch.testing.assert_close(emoji.images[:, :, 0, 0], torch.full((12, 3), 255, dtype=torch.uint8))


def test_order_is_that_of_the_table(emoji_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(emoji_folder, tmp_path / "emoji")
    table = tmp_path / "emoji" / "labels.csv"
    header, *rows = table.read_text("utf-8").splitlines()
    table.write_text("\n".join([header, *reversed(rows)]), "utf-8")
    straight, turned = load_emoji(emoji_folder, size=16), load_emoji(tmp_path / "emoji", size=16)
    assert turned.names == straight.names[::-1]
    torch.testing.assert_close(turned.images, straight.images.flip(0))
    torch.testing.assert_close(turned.labels, straight.labels.flip(0))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labels\.csv and images/"):
        load_emoji(tmp_path / "absent")


def test_categories_are_those_of_the_full_set(shared_data: Callable[[str], Path]) -> None:
    with (shared_data("fluent_emoji_3d") / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(sorted({row["category"] for row in rows})) == CATEGORIES
    assert len(rows) == 1852
    assert int(held_out_mask(len(rows)).sum()) == 185
