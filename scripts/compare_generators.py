"""Held-out losses and scores of training runs side by side: tables in Markdown, and curves.

    python scripts/compare_generators.py --runs runs/proof/IPTV2-Ti-16 runs/proof/DiT-Ti-2 \\
        --seconds 2.28 1.53 --scores runs/proof/scores/*.json --picture curves.png

--scores are records of eval.fid, of samples from checkpoints of these runs. --seconds are those of one update of each run,
timed in turn while nothing else ran: what a machine did besides during the runs themselves does not count.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from PIL import Image

from iptv2_diffusion.cli.load import load_denoiser
from iptv2_diffusion.engine import newest, read_records, read_run
from iptv2_diffusion.metrics.complexity import macs, parameters
from iptv2_diffusion.pictures import grid

HELD_OUT = "validation/held_out_loss"
BACKWARD = 3  # a training step costs about three forward passes
ACROSS, DOWN = 6, 5  # pictures of each set
AXES = {"updates": "updates", "MACs": "MACs of training, 10^15", "seconds": "seconds of updates"}


@dataclass(frozen=True)
class Run:
    path: Path
    seconds: float  # of one update

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        return read_records(self.path)

    @cached_property
    def batch(self) -> int:
        checkpoint = newest(self.path)
        if checkpoint is None:
            raise SystemExit(f"no checkpoint in {self.path}")
        return read_run(checkpoint)["config"]["batch_size"]

    @cached_property
    def cost(self) -> tuple[int, int]:
        """MACs for one latent, parameters; of the inference form."""
        model: Any = load_denoiser(str(self.path)).fuse().eval().to("meta")
        side = model.config["sample_size"]
        with torch.device("meta"):  # where every product is counted, those of fused attention too
            latent = torch.zeros(1, model.config["in_channels"], side, side)
            return macs(model, latent, torch.zeros(1), torch.zeros(1, dtype=torch.long)), parameters(model)

    @property
    def held_out(self) -> dict[int, dict[str, float]]:
        return {
            r["step"]: {k: v for k, v in r.items() if k.startswith(HELD_OUT)} for r in self.records if HELD_OUT in r
        }

    @property
    def label(self) -> str:
        return f"{self.path.name}: {self.cost[0] / 1e9:.3f} G, {self.cost[1] / 1e6:.2f} M"

    def scale(self, axis: str) -> float:
        """Of one update on that axis."""
        return {"updates": 1, "MACs": BACKWARD * self.batch * self.cost[0] / 1e15, "seconds": self.seconds}[axis]


@dataclass(frozen=True)
class Score:
    run: str
    step: int
    settings: dict[str, Any]
    figures: dict[str, float]

    @property
    def sampler(self) -> str:
        return f"{self.settings['sampler']} {self.settings['steps']}, guidance {self.settings['cfg_scale']}"


def read_scores(paths: Sequence[Path]) -> list[Score]:
    """In the order of runs, samplers, steps; the records of one set of samples in several feature spaces are one score."""
    found: dict[tuple[str, int, str], Score] = {}
    for path in paths:
        record = json.loads(path.read_text())
        settings = record["samples"]["drawing"]
        score = Score(Path(settings["ckpt"]).parent.name, settings["training_steps"], settings, record["figures"])
        found.setdefault((score.run, score.step, score.sampler), score).figures.update(score.figures)
    return [found[key] for key in sorted(found)]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def losses_table(runs: Sequence[Run], steps: Sequence[int]) -> str:
    bins = [name for name in runs[0].held_out[steps[0]] if name != HELD_OUT]
    header = ["model", "updates", "loss", *(name.rsplit("/")[-1] for name in bins)]
    rows = [
        [run.path.name, str(step), *(f"{run.held_out[step][name]:.4f}" for name in (HELD_OUT, *bins))]
        for run in runs
        for step in steps
    ]
    return markdown(header, rows)


def scores_table(scores: Sequence[Score]) -> str:
    names = list(dict.fromkeys(name for score in scores for name in score.figures))
    rows = [
        [s.run, s.sampler, str(s.step), *(f"{s.figures[n]:.3f}" if n in s.figures else "" for n in names)]
        for s in scores
    ]
    return markdown(["model", "sampler", "updates", *names], rows)


def draw(runs: Sequence[Run], scores: Sequence[Score], figure_name: str, picture: Path) -> None:
    figure, axes = plt.subplots(2, len(AXES), figsize=(12, 6.5), layout="constrained", sharey="row")
    for column, (axis, caption) in enumerate(AXES.items()):
        for number, run in enumerate(runs):
            scale, colour = run.scale(axis), f"C{number}"
            steps = sorted(run.held_out)
            losses = [run.held_out[step][HELD_OUT] for step in steps]
            axes[0, column].plot([step * scale for step in steps], losses, color=colour, label=run.label)
            own = [s for s in scores if s.run == run.path.name and figure_name in s.figures]
            for style, sampler in zip(("-o", "--s", ":^"), dict.fromkeys(s.sampler for s in own), strict=False):
                points = [(s.step * scale, s.figures[figure_name]) for s in own if s.sampler == sampler]
                label = f"{run.path.name}, {sampler}"
                axes[1, column].plot(*zip(*points, strict=True), style, color=colour, label=label)
        axes[1, column].set_xlabel(caption)
    axes[0, 0].set(ylabel="held-out loss, averaged weights", yscale="log")
    axes[1, 0].set(ylabel=figure_name, yscale="log")
    for row in axes:
        row[0].legend(fontsize=7)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def draw_samples(folders: Sequence[Path], picture: Path) -> None:
    """The first samples of every set, of the same labels and noise, side by side."""
    sets = [sorted((folder / "images").rglob("*.png"))[: ACROSS * DOWN] for folder in folders]
    files = [file for row in range(DOWN) for found in sets for file in found[row * ACROSS : (row + 1) * ACROSS]]
    grid([Image.open(file).convert("RGB") for file in files], columns=ACROSS * len(sets)).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="output folders of train.py")
    parser.add_argument("--seconds", type=float, nargs="+", required=True, help="of one update of each run")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="records of eval.fid")
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 2000, 3000, 4000], help="rows of losses")
    parser.add_argument("--picture", type=Path, required=True, help="new PNG")
    parser.add_argument(
        "--samples", type=Path, nargs="+", default=[], help="sets of sample.py, to be seen side by side"
    )
    parser.add_argument("--grid", type=Path, help="new PNG of these")
    args = parser.parse_args()
    if bool(args.samples) != bool(args.grid):
        parser.error("expected both --samples and --grid, or neither")
    for path in filter(None, (args.picture, args.grid)):
        if path.exists():
            raise SystemExit(f"{path} exists")
    if len(args.seconds) != len(args.runs):
        raise SystemExit(f"expected --seconds of {len(args.runs)} runs, got {len(args.seconds)}")
    runs, scores = [Run(*pair) for pair in zip(args.runs, args.seconds, strict=True)], read_scores(args.scores)
    for run in runs:
        print(f"{run.label}; {run.seconds:.2f} seconds for an update of {run.batch}")
    print(losses_table(runs, args.steps), scores_table(scores), sep="\n\n")
    draw(runs, scores, next(iter(scores[0].figures)), args.picture)
    if args.grid:
        draw_samples(args.samples, args.grid)


if __name__ == "__main__":
    main()
