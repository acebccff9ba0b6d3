"""BM3D on the benchmarks of Gaussian denoising, on the same noise and by the same protocol as our models.

`python -m benchmarks.denoise_bm3d --benchmark cbsd68-25 --data-path DATA --output bm3d.json`. The package `bm3d` (profile `np`) is
for non-commercial use only and not a dependency: `pip install bm3d`. BM3D is told the noise level; blind models are not.
"""

import argparse
import json
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from iptv2_diffusion.cli.benchmark_data import open_benchmark
from iptv2_diffusion.cli.scoreboard import scoreboard
from iptv2_diffusion.cli.scoring import Origin, evaluate
from iptv2_diffusion.data.image_writers import write_bytes
from iptv2_diffusion.restoration.protocols import select


def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, 1 | 3) floats, `sigma` of 255 levels."""
    bm3d = import_module("bm3d")
    if noisy.shape[2] == 3:
        return bm3d.bm3d_rgb(noisy.astype(np.float64), sigma / 255)
    return np.expand_dims(bm3d.bm3d(noisy[..., 0].astype(np.float64), sigma / 255), 2)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", nargs="+", required=True)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", type=Path, required=True)
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists")
    if find_spec("bm3d") is None:
        parser.error("BM3D needs another package, for non-commercial use only: pip install bm3d")
    records = []
    for benchmark in select(args.benchmark):
        if benchmark.sigma is None:
            parser.error(f"{benchmark.name} is no benchmark of Gaussian noise")
        pictures = open_benchmark(benchmark, args.data_path)
        origin = Origin(model={"name": "BM3D", "profile": "np", "sigma": "known"}, packages={"bm3d": version("bm3d")})
        restore = partial(denoise, sigma=benchmark.sigma)
        track = partial(tqdm, desc=benchmark.name, unit=" pictures")
        records.append(evaluate(benchmark, pictures, restore, origin, limit=args.limit, track=track))
        write_bytes(args.output, (json.dumps(records, indent=2) + "\n").encode(), overwrite=len(records) > 1)
    print(scoreboard(records))


if __name__ == "__main__":
    main()
