"""Everything the training loop can be told. The defaults are the recipe of DiT, which the paper follows."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from iptv2_diffusion.engine.decay import check_name
from iptv2_diffusion.engine.stages import Stage, Stages, parse_stages

# May differ between a checkpoint and the run that resumes it: none of these changes the result of a step by more than
# rounding (but `steps` does under a cosine, which `checkpoint` minds).
MAY_CHANGE = frozenset(
    {
        *("output", "steps", "resume", "micro_batch", "tf32", "workers", "checkpoint_every", "keep"),
        *("validate_every", "preview_every", "log_every", "tracker"),
    }
)


def _about(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    output: Path = field(metadata=_about("folder of checkpoints, stats.jsonl and previews"))
    resume: bool = field(
        default=False, metadata=_about("continue from the newest checkpoint in the output folder; none there: begin")
    )
    steps: int = field(default=400_000, metadata=_about("updates in total, earlier runs included"))
    batch_size: int = field(default=256, metadata=_about("samples per update over all processes"))
    stages: tuple[str, ...] | None = field(
        default=None,
        metadata=_about("START:SIZExBATCH ..., samples that grow from these steps on; none: one stage of batch_size"),
    )
    micro_batch: int | None = field(
        default=None,
        metadata=_about(
            "most samples per forward and process, in the first stage; fewer in later ones, by their area; none: all"
        ),
    )
    lr: float = field(default=1e-4, metadata=_about("learning rate after warm-up"))
    schedule: Literal["constant", "cosine"] = field(default="constant", metadata=_about("course of the learning rate"))
    lr_final: float | None = field(default=None, metadata=_about("rate of the last step under cosine; none: 0"))
    warmup_steps: int = field(default=0, metadata=_about("updates of linear warm-up"))
    optimizer: Literal["adamw", "muon"] = field(
        default="adamw", metadata=_about("muon turns the steps of matrices orthogonal and leaves the rest to Adam")
    )
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=_about("Adam's moment decays"))
    weight_decay: float = field(default=0.0, metadata=_about("decoupled weight decay"))
    clip: float | None = field(default=None, metadata=_about("largest gradient norm; none: no clipping"))
    ema: tuple[str, ...] = field(
        default=("0.9999",),
        metadata=_about(
            "averages of the weights: decays, constant from the first step, and power-SIGMA as in EDM2; "
            "the first is the model that is validated and shown"
        ),
    )
    seed: int = field(default=0, metadata=_about("seed of the training stream"))
    precision: Literal["no", "bf16"] = field(default="no", metadata=_about("autocast; weights stay float32"))
    tf32: bool = field(
        default=True, metadata=_about("let GPUs round factors of float32 products to 10 bits, as DiT does; much faster")
    )
    checkpoint_every: int = field(default=10_000, metadata=_about("updates between checkpoints"))
    keep: int | None = field(default=None, metadata=_about("newest checkpoints to keep; none: all"))
    validate_every: int | None = field(default=10_000, metadata=_about("updates between validations; none: never"))
    preview_every: int | None = field(default=10_000, metadata=_about("updates between previews; none: never"))
    log_every: int = field(default=10, metadata=_about("updates between records in stats.jsonl, of means over them"))
    tracker: tuple[Literal["tensorboard", "wandb"], ...] | None = field(
        default=("tensorboard",), metadata=_about("tensorboard, wandb or both, beside stats.jsonl; none: neither")
    )
    workers: int = field(default=2, metadata=_about("data loading processes per training process; 0: none"))

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch", "checkpoint_every", "keep", "validate_every",
                     "preview_every", "log_every", "lr", "clip"):  # fmt: skip
            value = getattr(self, name)
            _require(value is None or value > 0, name, "more than 0", value)
        for name in ("lr_final", "warmup_steps", "weight_decay", "workers"):
            value = getattr(self, name)
            _require(value is None or value >= 0, name, "0 or more", value)
        for value in self.betas:
            _require(0 <= value < 1, "betas", "in [0, 1)", value)
        for name in self.ema:
            check_name(name)
        named = " ".join(self.ema) or "none"
        _require(len(self.ema) == len(set(self.ema)) > 0, "ema", "one or more averages, all different", named)
        _require(0 <= self.seed < 2**62, "seed", "0 to 2**62 - 1", self.seed)
        _require(self.schedule in ("constant", "cosine"), "schedule", "constant or cosine", self.schedule)
        _require(self.optimizer in ("adamw", "muon"), "optimizer", "adamw or muon", self.optimizer)
        _require(self.precision in ("no", "bf16"), "precision", "no or bf16", self.precision)
        if self.schedule == "constant" and self.lr_final is not None:
            raise ValueError("lr_final belongs to schedule cosine; the schedule is constant")
        for stage in self.plan:
            _require(stage.start < self.steps, "stages", f"starts below the {self.steps} steps", stage.start)

    @cached_property
    def plan(self) -> Stages:
        return parse_stages(self.stages) if self.stages else Stages([Stage(0, 0, self.batch_size)])


def _require(fulfilled: bool, name: str, expected: str, value: Any) -> None:
    if not fulfilled:
        raise ValueError(f"{name}: expected {expected}, got {value}")
