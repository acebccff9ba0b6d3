"""Short trainings of small restorers, to choose the one that ships: `python scripts/restorer_trials.py --help`.

    for trial in $(python scripts/restorer_trials.py list); do
      python scripts/restorer_trials.py train $trial --output runs/trials/$trial --steps 600 --validate-every 600 \\
        --data-path photos_bsds500/train photos_bsds500/test
    done
    python scripts/restorer_trials.py table runs/trials/*

More flags go to train.py. The table shows PSNR of the held-out photographs at the end of each run, parameters and what
a pixel costs. Training is of blind colour denoising; the networks cost about the same, or are the best of those with one
thing changed.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from trials import Table, run

from iptv2_diffusion.backbone.config import RESTORERS
from iptv2_diffusion.cli import train_restoration
from iptv2_diffusion.engine import read_records
from iptv2_diffusion.metrics.complexity import macs, parameters
from iptv2_diffusion.restoration.restorer import IPTV2Restorer

U3: dict[str, Any] = {"heads": (1, 2, 4), "refinement": 0}
BEST: dict[str, Any] = {**U3, "width": 32, "layers": (0, 2, 4)}
TRIALS: dict[str, dict[str, Any]] = {
    "32-024": BEST,
    "32-033": {**U3, "width": 32, "layers": (0, 3, 3)},
    "36-022": {**U3, "width": 36, "layers": (0, 2, 2)},
    "40-06": {"heads": (1, 2), "refinement": 0, "width": 40, "layers": (0, 6)},
    "32-024-window16": BEST | {"window": 16},
    "32-024-grid4": BEST | {"grid": 4},
    "32-024-grid16": BEST | {"grid": 16},
    "32-024-fcsa": BEST | {"attention": ("fcsa",)},
    "32-024-ggsa": BEST | {"attention": ("ggsa",)},
}
RECIPE = (
    "--task denoise-color --sigma 0-55 --stages 0:64x8 --lr 1e-3 --warmup-steps 50 --clip 1.0 --ema 0.99 --hold-out 40"
)
PSNR, SIGMAS, SIDE = "validation/psnr", (15, 25, 50), 128
PER_RUN = "--precision bf16 --workers 0 --preview-every none"


def train(name: str, output: Path, rest: Sequence[str]) -> None:
    RESTORERS[name] = RESTORERS["IPTV2-Ti"] | TRIALS[name]
    sys.argv = ["train.py", *RECIPE.split(), *PER_RUN.split(), "--model", name, "--output", str(output), *rest]
    train_restoration.main()


def rows(folder: Path) -> Iterator[Sequence[str]]:
    figures = next(record for record in reversed(read_records(folder)) if f"{PSNR}_{SIGMAS[0]}" in record)
    with torch.device("meta"):
        model = IPTV2Restorer(**(RESTORERS["IPTV2-Ti"] | TRIALS[folder.name])).fuse()
        cost = macs(model, torch.zeros(1, 3, SIDE, SIDE)) / SIDE**2
    found = (f"{figures[f'{PSNR}_{sigma}']:.2f}" for sigma in SIGMAS)
    yield folder.name, f"{parameters(model) / 1e6:.2f} M", f"{cost / 1e3:.0f} k", str(figures["step"]), *found


def main() -> None:
    columns = ("trial", "parameters", "MACs of a pixel", "steps", *map(str, SIGMAS))
    run(__doc__, list(TRIALS), train, {"table": Table(columns, rows)})


if __name__ == "__main__":
    main()
