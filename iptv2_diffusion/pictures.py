"""Pictures to look at: labelled grids."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP = 4  # pixels between pictures
FONT_SIZE = 11  # pixels
LINE = FONT_SIZE + 5


def grid(
    pictures: Sequence[Image.Image], captions: Sequence[str] | None = None, columns: int | None = None
) -> Image.Image:
    """Pictures of one size, row by row on white, each over its caption; about as many rows as columns by default."""
    if not pictures:
        raise ValueError("expected at least one picture for a grid")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"expected a caption for each of {len(pictures)} pictures, got {len(captions)}")
    columns = columns or round(len(pictures) ** 0.5 + 0.49)
    width, height = pictures[0].size
    step_x, step_y = width + GAP, height + GAP + (LINE if captions else 0)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for index, picture in enumerate(pictures):
        x, y = GAP + index % columns * step_x, GAP + index // columns * step_y
        sheet.paste(picture, (x, y))
        if captions:
            draw.text((x, y + height + 2), _shortened(captions[index], font, width), fill="black", font=font)
    return sheet


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
