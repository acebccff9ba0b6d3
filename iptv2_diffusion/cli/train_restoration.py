"""Train an image restorer: `train.py --task TASK`.

Clean photographs serve for the denoising tasks (--sigma) and, with --degrade, for any other; else --data-path is a data set
of pairs: a folder with `input` and `target`, or a data set of the task as it is published. The recipe is the paper's.
"""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.common import allow_tf32, fields_of, resumed, run, say, start_from, to_resume, trainable
from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.config import add_flags, from_flags
from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.restoration.tasks import TASKS

STEPS = 300_000
STAGES = ((0, "128x64"), (116_000, "192x32"), (176_000, "256x16"), (224_000, "320x8"), (270_000, "384x8"))
EVERY = 4_000  # steps between checkpoints, validations and previews
PAPER: dict[str, Any] = {  # Section 4, implementation details
    "lr": 3e-4,
    "schedule": "cosine",
    "lr_final": 1e-6,
    "betas": (0.9, 0.999),
    "weight_decay": 1e-4,
    # The paper does not say; we clip as Restormer, whose recipe it follows, and average as BasicSR.
    "clip": 0.01,
    "ema": ("0.999",),
}
# May not change on resuming.
LEARNED = ("task", "hold_out", "loss", "mixup", "init")


def main() -> None:
    run(_train)


def make_parser() -> argparse.ArgumentParser:
    recipe = " ".join(f"{name}={value}" for name, value in _defaults("TASK-MODEL", STEPS).items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"Defaults: {recipe}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser.add_argument_group("model and data"), RestorationConfig)
    add_flags(parser.add_argument_group("training"), TrainConfig)
    return parser


def _defaults(name: str, steps: int) -> dict[str, Any]:
    """The paper's recipe, stretched or shrunk to `steps`."""
    starts = {round(start * steps / STEPS): stage for start, stage in STAGES}  # of those that coincide the last
    stages = {start: stage for start, stage in starts.items() if start < steps}
    every = max(round(EVERY * steps / STEPS), 1)
    return PAPER | {
        "output": Path("runs") / name,
        "steps": steps,
        "stages": tuple(f"{start}:{stage}" for start, stage in stages.items()),
        "checkpoint_every": every,
        "validate_every": every,
        "preview_every": every,
        "keep": 3,
    }


def _train() -> None:
    flags = make_parser().parse_args()
    restoration = from_flags(RestorationConfig, flags)
    if hasattr(flags, "batch_size"):
        raise ValueError("--batch-size: the batch is part of --stages, 0:128x64 for instance")
    if hasattr(flags, "steps") and hasattr(flags, "schedule_scale"):
        raise ValueError("expected --steps or --schedule-scale, not both: either one stretches the paper's schedule")
    steps = getattr(flags, "steps", max(round(STEPS * restoration.schedule_scale), 1))
    name = f"{restoration.task}-{restoration.model}".replace("/", "-")
    config = from_flags(TrainConfig, flags, fields_of(TrainConfig, _defaults(name, steps)))
    if not config.stages:
        raise ValueError("--stages: expected START:SIZExBATCH ..., 0:128x64 for instance, got none")
    _fit(resumed(restoration, config), config)


def _fit(restoration: RestorationConfig, config: TrainConfig) -> None:
    """Imports wait until the flags are known to be right, so that mistakes and --help answer at once."""
    from accelerate import PartialState

    from iptv2_diffusion.cli.restoration_sources import SCORES, restoration_data
    from iptv2_diffusion.engine import fit
    from iptv2_diffusion.restoration.task import RestorationTask

    allow_tf32(config.tf32)
    data = restoration_data(restoration)
    model = _model(restoration, config)
    _check_patches(config, model.config["window"] * model.unshuffle)
    task = RestorationTask(
        model,
        data.training,
        size_at=lambda position: config.plan.of(position).size or 0,
        held_out=data.held_out,
        scores=SCORES,
        validation_size=restoration.validation_size,
        loss=restoration.loss,
        mixup=restoration.mixup,
        seed=config.seed,
    )
    if restoration.dry_run:
        _rehearse(task, config)
        return
    say(f"Training {restoration.task} on {len(data.training)} pictures, {restoration.hold_out} held out.")
    steps = fit(
        task,
        config,
        model=dict(model.config),
        recipe={name: getattr(restoration, name) for name in LEARNED}
        | {"data": data.content, "degrade": data.degradations},
        restoration=asdict(restoration),
    )
    PartialState().destroy_process_group()
    say(f"{steps} steps done; restore with: iptv2-restore PICTURE --ckpt {config.output} --output restored")


def _check_patches(config: TrainConfig, window: int) -> None:
    """Displaced windows take part in maps that are larger than one; several processes wait for every gradient."""
    smallest = min(stage.size or 0 for stage in config.plan)
    if smallest <= window:
        raise ValueError(f"--stages: expected patches of more than {window} pixels, the window, got {smallest}")


def _model(restoration: RestorationConfig, config: TrainConfig) -> Any:
    from iptv2_diffusion.cli.load import load_restorer
    from iptv2_diffusion.restoration.restorer import create_restorer, unshuffled

    spec = TASKS[restoration.task]
    create = partial(
        create_restorer,
        restoration.model,
        in_channels=spec.channels[0],
        out_channels=spec.channels[1],
        norm=restoration.norm or spec.norm,
        task=restoration.task,
    )
    checkpointing, compiled = restoration.gradient_checkpointing, restoration.compile
    model = trainable(create, config.seed, gradient_checkpointing=checkpointing, compile=compiled)

    def load(source: str) -> Any:
        found = load_restorer(source)
        return unshuffled(found, model.unshuffle) if found.unshuffle == 1 < model.unshuffle else found

    if restoration.init is not None and not to_resume(config):
        start_from(model, restoration.init, load)
    return model


def _rehearse(task: Any, config: TrainConfig) -> None:
    from iptv2_diffusion.cli.load import choose_device
    from iptv2_diffusion.engine.rehearsal import rehearse

    device = choose_device(None)
    starts = [stage.start for stage in config.plan] + [config.steps]
    total = 0.0
    say("  from step   patch   batch   micro-batch   s/step   peak memory, GB   hours")
    for index, cost in enumerate(rehearse(task, config, device)):
        hours = (starts[index + 1] - starts[index]) * cost.seconds / 3600
        total += hours
        memory = "?" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e9:.2f}"
        stage = cost.stage
        say(
            f"{stage.start:11d} {stage.size or 0:7d} {stage.batch_size:7d} {cost.micro_batch:13d} "
            f"{cost.seconds:8.2f} {memory:>17} {hours:7.1f}"
        )
    say(f"One process on {device}: {total:.1f} hours for {config.steps} steps.")


if __name__ == "__main__":
    main()
