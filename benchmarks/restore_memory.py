"""Peak memory of restoring a photograph of 24 megapixels in tiles, in a process of its own for each model.

`python -m benchmarks.restore_memory` runs IPTV2-Ti and IPTV2-S, with random weights, on a CPU; `--megapixels 2` is a short trial.
With `--computed 5` the network runs on the last five tiles only and the others are copied: the same peak in a fraction of the time.
"""

import argparse
import math
import resource
import subprocess
import sys
import time
from math import isqrt
from typing import Any

import numpy as np

RATIO = (2, 3)  # height to width


def measure(name: str, megapixels: float, tile: int, computed: int | None) -> None:
    from iptv2_diffusion import create_restorer

    model = create_restorer(name).fuse().eval()
    side = isqrt(int(megapixels * 1e6 / (RATIO[0] * RATIO[1])))
    image = np.random.default_rng(0).integers(0, 256, (side * RATIO[0], side * RATIO[1], 3), np.uint8)
    if computed is not None:
        _run_on_the_last(computed, model, image, tile)
    before = time.perf_counter()
    restored = model.restore(image, tile=tile)
    seconds = time.perf_counter() - before
    assert restored.shape == image.shape
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shown = "all" if computed is None else computed
    print(f"| {name} | {image.shape[1]}x{image.shape[0]} | {tile} | {shown} | {peak:.0f} | {seconds:.0f} |")


def _run_on_the_last(computed: int, model: Any, image: np.ndarray, tile: int) -> None:
    """Not the first: what collects the results takes memory as it is filled."""
    network, calls = model.forward, []

    def forward(image: Any) -> Any:
        calls.append(1)
        return network(image) if len(calls) > copied else image.clone()

    model.forward, copied = forward, math.inf
    model.restore(image, tile=tile)  # counts the tiles
    copied = len(calls) - computed
    calls.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["IPTV2-Ti", "IPTV2-S"])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--computed", type=int, help="tiles that the network runs on; without it all")
    args = parser.parse_args()
    if len(args.models) == 1:
        measure(args.models[0], args.megapixels, args.tile, args.computed)
        return
    print(
        "| model | pixels | tile | computed | peak of the process, MiB | seconds |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in args.models:
        flags = ["--megapixels", str(args.megapixels), "--tile", str(args.tile)]
        flags += [] if args.computed is None else ["--computed", str(args.computed)]
        subprocess.run([sys.executable, "-m", "benchmarks.restore_memory", "--models", name, *flags], check=True)


if __name__ == "__main__":
    main()
