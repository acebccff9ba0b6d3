"""Patches that are loaded for restoration, from whole pictures and from tiles, and that training takes, per CPU second.

`python -m benchmarks.loader --photographs FOLDER` or `--pairs DEGRADED CLEAN`. Tiles are cut into a temporary folder first, so
that all files are in the system's cache; photographs get noise of sigma 25. Everything runs on one thread and by its clock,
which stands still while the machine does something else: the figures are of one core, for loading one worker's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.duel import environment
from iptv2_diffusion import create_restorer
from iptv2_diffusion.data.degradations import parse_degradations
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, pair_folders
from iptv2_diffusion.data.patches import CleanPatches, PairedPatches
from iptv2_diffusion.data.tiles import open_tiles, prepare_tiles
from iptv2_diffusion.rng import derived_generator, permutation

ROUNDS = 3  # of which the median counts; whole pictures and tiles take turns
STEP_PIXELS = 8 * 128**2  # of a micro-batch: 8 patches of 128 pixels a side, one of 320 or more
HEADER = (
    "| patch | from whole pictures | from tiles | ratio | a training step of {model} takes | share of loading |",
    "|---|---|---|---|---|---|",
)


def patches(pictures: PairedPictures | PictureList) -> Any:
    if isinstance(pictures, PictureList):
        return CleanPatches(pictures, parse_degradations("awgn:25"))
    return PairedPatches(pictures)


def loaded(source: Any, size: int, seconds: float) -> float:
    """Patches per second, the pictures in a random order."""
    order = permutation(len(source), 0).tolist()
    count, start = 0, time.process_time()
    while (taken := time.process_time() - start) < seconds or not count:
        source.patch(order[count % len(order)], size, derived_generator(0, count))
        count += 1
    return count / taken


def trained(model: Any, size: int) -> float:
    """Patches per second of training steps (forward, backward, AdamW) on what is loaded already."""
    batch = torch.rand(max(1, STEP_PIXELS // size**2), 3, size, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    taken = []
    for _ in range(1 + ROUNDS):  # the first is not counted
        start = time.process_time()
        (model(batch) - batch).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.process_time() - start)
    return len(batch) / median(taken[1:])


def rows(sources: Sequence[Any], sizes: Sequence[int], seconds: float, step: Callable[[int], float]) -> Iterator[str]:
    """The last column is the time of loading a patch from tiles over that of training on it, one core for each."""
    for size in sizes:
        turns = [[loaded(source, size, seconds) for source in sources] for _ in range(ROUNDS)]
        whole, tiles = (median(rates) for rates in zip(*turns, strict=True))
        needed = step(size)
        yield f"| {size} | {whole:.0f} | {tiles:.0f} | {tiles / whole:.2f} | {needed:.2f} | {needed / tiles:.1%} |"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--photographs", type=Path)
    data.add_argument("--pairs", type=Path, nargs=2, metavar=("DEGRADED", "CLEAN"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256, 320, 384], help="pixels a side")
    parser.add_argument("--tile", type=int, default=512, help="pixels a side")
    parser.add_argument("--overlap", type=int, default=96, help="pixels that tiles share")
    parser.add_argument("--model", default="IPTV2-Ti")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of loading")
    parser.add_argument("--output", type=Path, help="a Markdown file for the results; must not exist")
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if args.output and args.output.exists():
        parser.error(f"{args.output} exists")
    pictures = PairedPictures(pair_folders(*args.pairs)) if args.pairs else PictureList.below(args.photographs)
    model = create_restorer(args.model).train()
    torch.set_num_threads(1)
    lines = [environment(1, "cpu"), "", f"`python -m benchmarks.loader {' '.join(sys.argv[1:])}`", ""]
    lines += [line.format(model=args.model) for line in HEADER]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare_tiles(pictures, Path(folder) / "tiles", size=args.tile, overlap=args.overlap)
        sources = [patches(kind) for kind in (pictures, open_tiles(Path(folder) / "tiles"))]
        for row in rows(sources, args.sizes, args.seconds, partial(trained, model)):
            print(row, flush=True)
            lines.append(row)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
