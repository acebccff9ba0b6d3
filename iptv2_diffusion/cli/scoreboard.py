"""Our figures beside those that the paper prints."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from iptv2_diffusion.restoration.published import NOTES, Figures, published

Record = Mapping[str, Any]

UNITS = {"psnr": "PSNR, dB", "ssim": "SSIM", "mae": "MAE", "lpips": "LPIPS"}
NOTHING_PRINTED = "the paper prints no figures"


def scoreboard(records: Sequence[Record]) -> str:
    """A table for each table of the paper, with what has to be known beside it."""
    blocks = [_block(list(group)) for _, group in groupby(records, key=lambda record: record["table"])]
    return "\n\n".join(blocks)


def figures(record: Record) -> Figures:
    """A record's means under the names that `published` uses."""
    parts = {f"{part}/{name}": value for part, means in record["parts"].items() for name, value in means.items()}
    return parts | record["means"]


def _block(records: list[Record]) -> str:
    methods = list(dict.fromkeys(method for record in records for method in published(record["benchmark"])))
    ours = records[0]["model"]["name"]
    table = records[0]["table"]
    rows = [[f"Table {table}" if table else NOTHING_PRINTED, "", *methods, ours, "pictures"]]
    rows += [row for record in records for row in _rows(record, methods)]
    lines = _aligned(rows)
    return "\n".join([*lines, *([NOTES[table]] if table in NOTES else [])])


def _rows(record: Record, methods: Sequence[str]) -> Iterable[list[str]]:
    printed, found = published(record["benchmark"]), figures(record)
    pictures = f"{record['pictures']} of {record['pictures_of_the_set']}"
    if not found:
        yield [record["title"], "scored by a server", *("" for _ in methods), "", pictures]
    for figure, value in found.items():
        others = [_shown(figure, printed.get(method, {}).get(figure)) for method in methods]
        yield [record["title"], _label(figure), *others, _shown(figure, value), pictures]


def _label(figure: str) -> str:
    part, _, score = figure.rpartition("/")
    return f"{part} {UNITS[score]}" if part else UNITS[score]


def _shown(figure: str, value: float | None) -> str:
    """To the digits that the paper prints."""
    return "-" if value is None else f"{value:.{2 if figure.endswith('psnr') else 3}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first two columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
