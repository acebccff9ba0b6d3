"""Training examples per second from shards of latents, and from the same pictures encoded on the fly by the same VAE.

`python -m benchmarks.latents --pictures FOLDER` encodes the first `--count` pictures into shards in a temporary folder, so
that all files are in the system's cache; then the ways take turns. It also prints what rounding the moments to float16 does.
"""

import argparse
import itertools
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
from iptv2_diffusion.cli.data import LatentsConfig
from iptv2_diffusion.cli.latents import encode_shards, make_header
from iptv2_diffusion.cli.sources import vae_source
from iptv2_diffusion.data.image_folder import ImageFolder
from iptv2_diffusion.data.labelled_pictures import FolderPictures
from iptv2_diffusion.data.latent_format import begin, finish
from iptv2_diffusion.data.latent_shards import open_latents
from iptv2_diffusion.data.sources import Pictures
from iptv2_diffusion.diffusion.latents import LatentCodec, center_crop
from iptv2_diffusion.rng import derived_generator, permutation

ROUNDS = 3  # of which the median counts
BATCH = 16  # pictures encoded at once
IMAGENET = 1_281_167  # pictures


class First(FolderPictures):
    def __init__(self, root: Path, count: int) -> None:
        super().__init__(root)
        self.count = min(count, super().__len__())

    def __len__(self) -> int:
        return self.count


def batches(source: Any, count: int) -> Iterator[list[dict[str, torch.Tensor]]]:
    """Endlessly, in a new order each time round."""
    for epoch in itertools.count():
        order = permutation(count, epoch).tolist()
        for start in range(0, count, BATCH):
            yield [source.example(index, derived_generator(epoch, index)) for index in order[start : start + BATCH]]


def encoded(source: Any, count: int, codec: LatentCodec) -> Iterator[Any]:
    for number, batch in enumerate(batches(source, count)):
        pixels = torch.stack([example["pixels"] for example in batch])
        yield codec.encode(pixels.float() / 127.5 - 1, derived_generator(1, number))


def rate(stream: Iterator[Any], seconds: float) -> float:
    """Examples per second; the first batch is not counted."""
    next(stream)
    count, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds or not count:
        count += len(next(stream))
    return count / taken


def table(ways: dict[str, Callable[[], Iterator[Any]]], seconds: float) -> Iterator[str]:
    turns = [[rate(way(), seconds) for way in ways.values()] for _ in range(ROUNDS)]
    rates = [median(column) for column in zip(*turns, strict=True)]
    yield "| examples from | examples/s | ratio |"
    yield "|---|---|---|"
    for name, found in zip(ways, rates, strict=True):
        yield f"| {name} | {found:.1f} | {found / rates[0]:.1f} |"


def rounding(moments: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> str:
    """What float16 does to means and deviations of float32."""
    mean, std = (torch.cat(parts) for parts in zip(*moments, strict=True))
    error = mean.half().float() - mean
    share, relative = error / std, (std.half().float() - std) / std
    return (
        f"float16: means move by {_rms(error):.5f} (rms; they spread by {mean.std():.2f}), that is by "
        f"{_rms(share):.3f} of the posterior's deviation (rms; at most {share.abs().max():.1f}, where the deviation is "
        f"{std.flatten()[share.abs().argmax()]:.5f}; its median is {std.median():.3f}); deviations move by {_rms(relative):.2%}"
    )


def shuffling() -> str:
    start = time.perf_counter()
    order = permutation(IMAGENET, 0)
    return f"an order of {IMAGENET} pictures: {time.perf_counter() - start:.2f} s, {order.nbytes / 2**20:.1f} MiB"


def _rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of folders of pictures")
    parser.add_argument("--vae", default="bundled", help="hub id or folder")
    parser.add_argument("--image-size", type=int, default=128, help="pixels a side")
    parser.add_argument("--count", type=int, default=256, help="pictures")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a Markdown file for the results; must not exist")
    return parser


def measure(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    config = LatentsConfig(data_path=args.pictures, output=folder, vae=args.vae, image_size=args.image_size, workers=0)
    part, codec = First(args.pictures, args.count), LatentCodec.from_pretrained(vae_source(args.vae))
    header = make_header(config, part, codec)
    begin(folder, header)
    encode_shards(config, part, codec, header, range(header.shards))
    finish(folder, header)
    pictures = Pictures(ImageFolder(args.pictures, partial(center_crop, size=args.image_size)), flip=True)
    shards, _ = open_latents(folder, mirror=True)
    yield from table(
        {
            "pictures, decoded and encoded": lambda: encoded(pictures, len(part), codec),
            "pictures, decoded only": lambda: batches(pictures, len(part)),
            "shards": lambda: batches(shards, len(part)),
        },
        args.seconds,
    )
    images = [pictures.folder[index][0][None].float() / 127.5 - 1 for index in range(len(part))]
    yield f"\n{rounding([codec.moments(image) for image in images])}\n\n{shuffling()}"


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if args.output and args.output.exists():
        parser.error(f"{args.output} exists")
    torch.set_num_threads(args.threads)
    lines = [environment(args.threads, "cpu"), "", f"`python -m benchmarks.latents {' '.join(sys.argv[1:])}`", ""]
    with tempfile.TemporaryDirectory() as folder:
        lines += measure(args, Path(folder) / "latents")
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
