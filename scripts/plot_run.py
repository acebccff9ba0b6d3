"""Draw the loss curves of a training run.

python scripts/plot_run.py runs/emoji curve.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from iptv2_diffusion.engine import read_records

SMOOTHING = 20  # records averaged for a point of the training curve


def series(records: list[dict], name: str) -> tuple[list[int], list[float]]:
    found = [(record["step"], record[name]) for record in records if name in record]
    return [step for step, _ in found], [value for _, value in found]


def smoothed(values: list[float]) -> list[float]:
    windows = (values[max(0, i - SMOOTHING + 1) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of train.py")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    if args.picture.exists():
        raise SystemExit(f"{args.picture} exists")
    records = read_records(args.run)
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    steps, losses = series(records, "loss")
    axes.plot(steps, smoothed(losses), label="training, trained weights", linewidth=1)
    axes.plot(*series(records, "validation/held_out_loss"), label="held out, averaged weights", linewidth=1.5)
    axes.set(xlabel="step", ylabel="mean squared error")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.picture, dpi=120)


if __name__ == "__main__":
    main()
