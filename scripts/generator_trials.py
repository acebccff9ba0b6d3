"""Short trainings of small denoisers of emoji latents, to choose the one that ships: `python scripts/generator_trials.py --help`.

    for trial in $(python scripts/generator_trials.py list); do
      python scripts/generator_trials.py train $trial --output runs/trials/$trial
    done
    python scripts/generator_trials.py table runs/trials/*
    python scripts/generator_trials.py averages runs/trials/48-224

More flags go to train.py. The table shows the held-out loss at the end of each run, parameters and what a picture costs
in a step of sampling. All have the laptop's recipe, shortened; names are width and layers by level. `averages` shows the
held-out loss of every average of a run's newest checkpoint.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from trials import Table, run

from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.backbone.config import DENOISERS
from iptv2_diffusion.cli.sources import bundled_emoji
from iptv2_diffusion.cli.train import EMOJI_RECIPE
from iptv2_diffusion.cli.train import main as train_main
from iptv2_diffusion.diffusion.schedule import make_scheduler
from iptv2_diffusion.diffusion.task import GenerationTask
from iptv2_diffusion.engine import read_records, read_run
from iptv2_diffusion.engine.checkpoint import averages, newest
from iptv2_diffusion.metrics.complexity import macs, parameters

BASE = DENOISERS["IPTV2-Ti-16"]
TRIALS: dict[str, dict[str, Any]] = {
    "48-224": {},
    "32-224": {"width": 32},
    "64-224": {"width": 64},
    "48-222": {"layers": (2, 2, 2)},
}
SHORT: dict[str, Any] = {
    "micro_batch": 32,
    "precision": "bf16",
    "steps": 600,
    "ema": ("0.99",),
    "validate_every": 600,
    "preview_every": None,
}
HELD_OUT = "validation/held_out_loss"


def flag(name: str, value: Any) -> list[str]:
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{spelled}" if value else f"--no-{spelled}"]
    return [f"--{spelled}", *map(str, value if isinstance(value, tuple) else [value])]


def train(name: str, output: Path, rest: Sequence[str]) -> None:
    DENOISERS[name] = BASE | TRIALS[name]
    recipe = EMOJI_RECIPE | SHORT | {"model": name, "output": output}
    sys.argv = ["train.py", *(word for item in recipe.items() for word in flag(*item)), *rest]
    train_main()


def rows(folder: Path) -> Iterator[Sequence[str]]:
    figures = next(record for record in reversed(read_records(folder)) if HELD_OUT in record)
    with torch.device("meta"):
        model: Any = IPTV2Transformer2DModel.from_config(read_run(newest_of(folder))["info"]["model"])
        model.fuse()
        inputs = torch.zeros(1, 4, 16, 16), torch.zeros(1), torch.zeros(1, dtype=torch.long)
        cost = macs(model, *inputs)
    size = f"{parameters(model) / 1e6:.2f} M", f"{cost / 1e9:.3f} G"
    yield folder.name, *size, str(figures["step"]), f"{figures[HELD_OUT]:.4f}"


def newest_of(folder: Path) -> Path:
    checkpoint = newest(folder)
    if checkpoint is None:
        raise SystemExit(f"{folder} holds no checkpoint")
    return checkpoint


@torch.no_grad()
def average_rows(folder: Path) -> Iterator[Sequence[str]]:
    """Of a run on the bundled latents."""
    checkpoint = newest_of(folder)
    generation: Any = SimpleNamespace(**read_run(checkpoint)["info"]["generation"])
    data = bundled_emoji(generation)
    config: Any = DDPMScheduler.load_config(checkpoint / "scheduler")
    scheduler = make_scheduler("ddpm", config, learned_sigma=False)
    for name, place in averages(checkpoint).items():
        model = IPTV2Transformer2DModel.from_pretrained(place).eval()
        task = GenerationTask(
            model, scheduler, data.codec, data.training, class_names=data.class_names, held_out=data.held_out
        )
        yield name, f"{task.validate(model)['held_out_loss']:.4f}"


def main() -> None:
    table = Table(("trial", "parameters", "MACs", "steps", "held-out loss"), rows)
    run(__doc__, list(TRIALS), train, {"table": table, "averages": Table(("average", "held-out loss"), average_rows)})


if __name__ == "__main__":
    main()
