"""Seconds to denoise one photograph with a restorer of this package, BM3D and Restormer, in turn, as ratios.

`python -m benchmarks.restore_speed` takes the bundled denoiser; `--ckpt` another. BM3D (`pip install bm3d`, for non-commercial use) is
told the noise level; Restormer comes from `pip install -e ".[bench]"`, with random weights, which cost what trained ones do.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from skimage import data

from benchmarks.denoise_bm3d import denoise
from benchmarks.duel import environment
from benchmarks.workloads import restorer
from iptv2_diffusion import load_restorer
from iptv2_diffusion.data.image_io import read_photo
from iptv2_diffusion.restoration.protocols import noisy
from iptv2_diffusion.restoration.restorer import reflect_to_multiple

SIGMA = 25
PEERS = ("BM3D", "Restormer")
RESTORMERS_MULTIPLE = 8
Contender = Callable[[np.ndarray], Any]  # a noisy image (H, W, 3), float32 in [0, 1]


def ours(ckpt: str) -> Contender:
    model = load_restorer(ckpt).fuse()
    return lambda image: model.restore(image, tile=None)


def peer(name: str) -> Contender:
    if name == "BM3D":
        return lambda image: denoise(image, SIGMA)
    model = restorer(name).eval()

    @torch.inference_mode()
    def run(image: np.ndarray) -> torch.Tensor:
        return model(reflect_to_multiple(torch.from_numpy(image).permute(2, 0, 1)[None], RESTORMERS_MULTIPLE))

    return run


def take_turns(contenders: dict[str, Contender], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Medians; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + rounds):
        for name, run in contenders.items():
            before = time.perf_counter()
            run(image)
            seconds[name].append(time.perf_counter() - before)
    return {name: median(taken[1:]) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", default="denoise-color", help="as of iptv2-restore (default: %(default)s)")
    parser.add_argument("--image", type=Path, help="(default: scikit-image's astronaut, 512 by 512)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    photograph = data.astronaut() if args.image is None else read_photo(args.image).pixels
    image = noisy(photograph, SIGMA)
    contenders = {args.ckpt: ours(args.ckpt)} | {name: peer(name) for name in args.peers}
    medians = take_turns(contenders, image, args.rounds)
    machine, (height, width) = environment(torch.get_num_threads(), "cpu"), image.shape[:2]
    print(f"{machine}; {width}x{height} pixels, median of {args.rounds}\n")
    print("| denoiser | seconds | over ours |\n|---|---|---|")
    for name, taken in medians.items():
        print(f"| {name} | {taken:.2f} | {taken / medians[args.ckpt]:.2f} |")


if __name__ == "__main__":
    main()
