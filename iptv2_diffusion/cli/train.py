"""Train a class-conditional latent diffusion model.

With --data-path (one folder of pictures per class, or latents made of them) the recipe is that of DiT, which the paper
follows. Without one, the bundled emoji set is used with a recipe sized for a laptop, printed below. With --task an
image restorer is trained instead: see train.py --task denoise-color --help.
"""

import argparse
import math
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from iptv2_diffusion.backbone.config import DENOISERS, preset
from iptv2_diffusion.cli import train_restoration
from iptv2_diffusion.cli.common import allow_tf32, fields_of, resumed, run, say, start_from, to_resume, trainable
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.diffusion.dit_sizes import DITS
from iptv2_diffusion.engine.settings import TrainConfig

EMOJI_RECIPE: dict[str, Any] = {
    "model": "IPTV2-Ti-16",
    "image_size": 128,
    "prediction": "v_prediction",
    "learned_sigma": False,
    "flip": False,  # flags and symbols are not symmetric
    "steps": 5000,
    "batch_size": 32,
    "micro_batch": 16,
    "lr": 1e-3,
    "schedule": "cosine",
    "lr_final": 1e-5,
    "warmup_steps": 100,
    "betas": (0.9, 0.99),
    "clip": 1.0,
    "ema": ("0.999",),
    "checkpoint_every": 250,
    "keep": 2,
    "validate_every": 200,
    "preview_every": 500,
    "workers": 0,
}
OBJECTIVE = ("min_snr", "flow_mean", "flow_std")
LEARNED = (  # may not change on resuming
    *("image_size", "flip", "label_dropout", "init"),
    *("prediction", "learned_sigma", *OBJECTIVE),
)
SMALL_MEMORY = {"IPTV2-S": {"micro_batch": 4}}  # stays under 6 GB


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    model: str = arg("IPTV2-S", f"one of {', '.join(DENOISERS | DITS)}")
    init: str | None = arg(None, "start from the weights of this run, checkpoint, pipeline or hub id, where they fit")
    data_path: Path | None = arg(None, "folder with one of pictures per class, or of latents; none: the bundled emoji")
    vae: str | None = arg(
        None,
        "hub id or folder of a diffusers VAE; none: that of the latents, stabilityai/sd-vae-ft-ema, or the bundled one",
    )
    image_size: int = arg(256, "pixels a side of the centre crop")
    flip: bool = arg(True, "mirror half of the pictures")
    label_dropout: float = arg(0.1, "share of samples trained without their label, for guidance")
    prediction: Literal["epsilon", "v_prediction", "flow"] = arg(
        "epsilon", "what the network predicts: the noise, the velocity v, or that of a rectified flow"
    )
    learned_sigma: bool = arg(True, "learn the variance of the reverse steps, too; of a flow there is none")
    min_snr: float | None = arg(None, "gamma of min-SNR weights for epsilon and v_prediction, 5 for instance; none: 1")
    flow_mean: float = arg(0.0, "mean of the logit of a flow's times in training")
    flow_std: float = arg(1.0, "standard deviation of the same")
    gradient_checkpointing: bool = arg(False, "recompute activations in the backward pass to save memory")
    compile: bool = arg(False, "torch.compile every layer")

    def __post_init__(self) -> None:
        preset(DENOISERS | DITS, self.model)
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"expected --label-dropout from 0 to 1, got {self.label_dropout}")
        if self.image_size < 1:
            raise ValueError(f"expected --image-size of at least 1, got {self.image_size}")
        if self.min_snr is not None and not 0 < self.min_snr < math.inf:
            raise ValueError(f"expected --min-snr above 0, got {self.min_snr}")
        if not (math.isfinite(self.flow_mean) and 0 < self.flow_std < math.inf):
            raise ValueError(
                f"expected a finite --flow-mean and --flow-std above 0, got {self.flow_mean} {self.flow_std}"
            )
        if self.prediction == "flow" and (self.learned_sigma or self.min_snr is not None):
            raise ValueError("--prediction flow takes neither --learned-sigma nor --min-snr")
        if self.prediction != "flow" and (self.flow_mean, self.flow_std) != (0.0, 1.0):
            raise ValueError("--flow-mean and --flow-std need --prediction flow")


def main() -> None:
    if any(word.split("=")[0] == "--task" for word in sys.argv[1:]):
        train_restoration.main()
    else:
        run(_train)


def make_parser() -> argparse.ArgumentParser:
    recipe = " ".join(f"{name}={value}" for name, value in EMOJI_RECIPE.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Defaults without --data-path: {recipe}, output=runs/emoji-MODEL; with it: output=runs/MODEL.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser.add_argument_group("model and data"), GenerationConfig)
    add_flags(parser.add_argument_group("training"), TrainConfig)
    return parser


def _train() -> None:
    flags = make_parser().parse_args()
    bundled = getattr(flags, "data_path", None) is None
    defaults = dict(EMOJI_RECIPE) if bundled else {}
    if getattr(flags, "prediction", None) == "flow":
        defaults["learned_sigma"] = False
    generation = from_flags(GenerationConfig, flags, fields_of(GenerationConfig, defaults))
    defaults |= SMALL_MEMORY.get(generation.model, {}) if bundled else {}
    name = generation.model.replace("/", "-")
    defaults |= {"output": Path("runs") / (f"emoji-{name}" if bundled else name)}
    config = from_flags(TrainConfig, flags, fields_of(TrainConfig, defaults))
    if bundled:
        say("No --data-path: training on the bundled emoji latents with a laptop's recipe.")
    else:
        say(f"Training on {generation.data_path}, DiT's recipe.")
    _fit(resumed(generation, config), config)


def _fit(generation: GenerationConfig, config: TrainConfig) -> None:
    """Imports wait until the flags are known to be right, so that mistakes and --help answer at once."""
    from accelerate import PartialState

    from iptv2_diffusion.cli.sources import bundled_emoji, pictures
    from iptv2_diffusion.diffusion.objective import make_objective
    from iptv2_diffusion.diffusion.task import GenerationTask
    from iptv2_diffusion.diffusion.vae_hash import encoder_sha256
    from iptv2_diffusion.engine import fit

    allow_tf32(config.tf32)
    data = (bundled_emoji if generation.data_path is None else partial(pictures, generation.data_path))(generation)
    if data.held_out is None:
        say("No picture is held out, so there will be no held-out loss: `iptv2-data latents --hold-out 50` keeps some.")
    model = _model(generation, len(data.class_names), data.codec, config)
    scheduler, vae_sha256 = _scheduler(generation), encoder_sha256(data.codec.vae)
    vae = _vae_of_run(config, vae_sha256) or data.vae
    task = GenerationTask(
        model,
        scheduler,
        data.codec,
        data.training,
        class_names=data.class_names,
        objective=make_objective(scheduler.config, **{name: getattr(generation, name) for name in OBJECTIVE}),
        held_out=data.held_out,
        label_dropout=generation.label_dropout,
        seed=config.seed,
    )
    steps = fit(
        task,
        config,
        model=dict(model.config),
        recipe={name: getattr(generation, name) for name in LEARNED} | {"data": data.content, "vae": vae},
        generation=asdict(generation),
        vae=data.vae,
        vae_sha256=vae_sha256,
    )
    PartialState().destroy_process_group()
    say(f"{steps} steps done; sample with: python sample.py --ckpt {config.output}")


def _vae_of_run(config: TrainConfig, sha256: str) -> str | None:
    """As the run that is resumed has it, if its encoder is the same: it may lie elsewhere by now."""
    from iptv2_diffusion.engine import read_run

    checkpoint = to_resume(config)
    info = {} if checkpoint is None else read_run(checkpoint)["info"]
    return info["recipe"]["vae"] if info.get("vae_sha256") == sha256 else None


def _model(generation: GenerationConfig, classes: int, codec: Any, config: TrainConfig) -> Any:
    from iptv2_diffusion.cli.load import load_denoiser
    from iptv2_diffusion.diffusion.denoiser import create_denoiser

    if generation.image_size % codec.factor:
        raise ValueError(f"expected --image-size in multiples of {codec.factor}, got {generation.image_size}")
    create = partial(
        create_denoiser,
        generation.model,
        sample_size=generation.image_size // codec.factor,
        in_channels=codec.channels,
        out_channels=codec.channels * (2 if generation.learned_sigma else 1),
        num_classes=classes,
    )
    checkpointing, compiled = generation.gradient_checkpointing, generation.compile
    model = trainable(create, config.seed, gradient_checkpointing=checkpointing, compile=compiled)
    if generation.init is not None and not to_resume(config):  # a checkpoint brings all weights
        start_from(model, generation.init, load_denoiser)
    return model


def _scheduler(generation: GenerationConfig) -> Any:
    from iptv2_diffusion.diffusion.schedule import flow_scheduler, make_scheduler, paper_scheduler

    if generation.prediction == "flow":
        return flow_scheduler()
    config = dict(paper_scheduler().config) | {"prediction_type": generation.prediction}
    return make_scheduler("ddpm", config, learned_sigma=generation.learned_sigma)


if __name__ == "__main__":
    main()
