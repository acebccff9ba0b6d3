"""Draw the curves of training runs, of which each went on where the one before ended: loss, and what was held out.

python scripts/plot_run.py runs/emoji curve.png
python scripts/plot_run.py runs/deblur-1 runs/deblur-2 curve.png
"""

import argparse
import re
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from iptv2_diffusion.engine import read_records

HELD_OUT, PSNR = "validation/held_out_loss", "validation/psnr"
SMOOTHING = 20  # records averaged for a point of the training curve


def series(records: list[dict], name: str) -> tuple[list[int], list[float]]:
    found = [(record["step"], record[name]) for record in records if name in record]
    return [step for step, _ in found], [value for _, value in found]


def smoothed(values: list[float]) -> list[float]:
    windows = (values[max(0, i - SMOOTHING + 1) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def joined(runs: list[Path]) -> list[dict]:
    """Records of all runs, steps counted on."""
    records: list[dict] = []
    for run in runs:
        before = records[-1]["step"] if records else 0
        records += [record | {"step": before + record["step"]} for record in read_records(run)]
    return records


def draw(records: list[dict]) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    steps, losses = series(records, "loss")
    axes.plot(steps, smoothed(losses), label="training, trained weights", linewidth=1)
    steps, losses = series(records, HELD_OUT)
    axes.set(xlabel="step", ylabel="loss")
    if losses:
        axes.plot(steps, losses, label="held out, averaged weights", linewidth=1.5)
    else:  # restorers are measured in dB
        right = axes.twinx()
        right.set_ylabel("PSNR, dB")
        names = {name for record in records for name in record if re.fullmatch(rf"{PSNR}_\d+", name)}
        for index, name in enumerate(sorted(names) or [PSNR]):
            label = f"held out, averaged weights{name.removeprefix(PSNR).replace('_', ', noise of ')}"
            right.plot(*series(records, name), marker=".", label=label, color=f"C{1 + index}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of train.py, in order")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    if args.picture.exists():
        raise SystemExit(f"{args.picture} exists")
    draw(joined(args.runs)).savefig(args.picture, dpi=120)


if __name__ == "__main__":
    main()
