"""Grids of pictures, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from iptv2_diffusion.pictures import FONT_SIZE, grid

WIDTH, HEIGHT = 24, 10
STEP = WIDTH + 4  # to the next picture in a row


def picture(index: int) -> Image.Image:
    """Random dark pixels: nothing that looks like the white around it."""
    pixels = np.random.default_rng(index).integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pasted(sheet: Image.Image, places: list[tuple[int, int]]) -> np.ndarray:
    """The sheet, after asserting that picture i lies at place i (left, top), with the pictures painted white."""
    pixels = np.array(sheet)
    for index, (x, y) in enumerate(places):
        cell = (slice(y, y + HEIGHT), slice(x, x + WIDTH))
        np.testing.assert_array_equal(pixels[cell], np.asarray(picture(index)))
        pixels[cell] = 255
    return pixels


def test_pictures_lie_row_by_row_on_white() -> None:
    sheet = grid([picture(i) for i in range(5)])
    assert (sheet.mode, sheet.size) == ("RGB", (4 + 3 * STEP, 4 + 2 * 14))
    rest = pasted(sheet, [(4, 4), (32, 4), (60, 4), (4, 18), (32, 18)])
    assert (rest == 255).all()


def test_columns_can_be_chosen() -> None:
    sheet = grid([picture(i) for i in range(3)], columns=1)
    assert sheet.size == (4 + STEP, 4 + 3 * 14)
    assert (pasted(sheet, [(4, 4), (4, 18), (4, 32)]) == 255).all()


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (2, (2, 1)), (4, (2, 2)), (9, (3, 3)), (10, (4, 3))])
def test_there_are_about_as_many_rows_as_columns(count: int, shape: tuple[int, int]) -> None:
    columns, rows = shape
    assert grid([picture(0)] * count).size == (4 + columns * STEP, 4 + rows * 14)


def test_each_caption_stands_below_its_picture() -> None:
    sheet = grid([picture(i) for i in range(4)], ["H", "", "HH", "i"])
    step = HEIGHT + 4 + 16
    assert sheet.size == (4 + 2 * STEP, 4 + 2 * step)
    rest = pasted(sheet, [(4, 4), (32, 4), (4, 4 + step), (32, 4 + step)])
    ink = (255 - rest.astype(int)).sum(2)
    strips = [ink[4 + row * step + HEIGHT :][:20, 4 + column * STEP :][:, :STEP] for row in (0, 1) for column in (0, 1)]
    amounts = [strip[:16].sum() for strip in strips]
    assert ink.sum() == sum(amounts)  # none elsewhere
    assert amounts[1] == 0
    assert amounts[2] == 2 * amounts[0]
    assert 0 < amounts[3] < amounts[0]


def test_a_long_caption_is_cut_to_the_width_of_the_picture() -> None:
    font = ImageFont.load_default(FONT_SIZE)
    fitting = max(count for count in range(1, 20) if font.getlength("m" * count) <= WIDTH)
    sheet = grid([picture(0), picture(1)], ["m" * 50, "m"])
    assert sheet.tobytes() == grid([picture(0), picture(1)], ["m" * fitting, "m"]).tobytes()
    assert sheet.tobytes() != grid([picture(0), picture(1)], ["m" * (fitting - 1), "m"]).tobytes()
    assert (np.asarray(sheet)[4 + HEIGHT : -4, 4 + WIDTH : 4 + STEP] == 255).all()  # the gap


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one picture"):
        grid([])
