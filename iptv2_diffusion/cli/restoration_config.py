"""The flags of restoration training, beside those of the training loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iptv2_diffusion.backbone.config import RESTORERS, preset
from iptv2_diffusion.config import arg
from iptv2_diffusion.restoration.tasks import TASKS

SSIM_WINDOW = 11  # pixels a side


@dataclass(frozen=True, kw_only=True)
class RestorationConfig:
    task: str = arg(help=f"one of {', '.join(TASKS)}")
    model: str = arg("IPTV2-S", f"one of {', '.join(RESTORERS)}")
    data_path: tuple[Path, ...] = arg(help="folders of clean photographs, or one data set of pairs")
    sigma: str | None = arg(None, "noise level, or LOW-HIGH drawn for each patch, in units of 1/255")
    degrade: str | None = arg(None, "degradations of clean photographs, such as motion:9-31,awgn:0-5,jpeg:60-95")
    hold_out: int = arg(16, "pictures of the training data to validate on, their scenes left out of it; 0: none")
    validation_size: int | None = arg(256, "pixels a side of the middle that is validated on; none: whole pictures")
    loss: Literal["l1", "l1+fft", "charbonnier", "psnr"] = arg(
        "l1", "what is minimised; the paper does not say, Restormer takes l1"
    )
    mixup: float = arg(0.0, "parameter of the Beta distribution that mixes patches; Restormer denoises with 1.2")
    norm: str | None = arg(None, "bias_free or centred; none: bias_free for denoising, else centred, as Restormer")
    init: str | None = arg(
        None, "weights to start from: a run, checkpoint or saved model, of any task or size, or a task's bundled ones"
    )
    schedule_scale: float = arg(1.0, "shrinks the paper's steps and stages by this factor")
    dry_run: bool = arg(False, "print step time and memory of every stage on this machine, and end")
    gradient_checkpointing: bool = arg(False, "recompute activations in the backward pass to save memory")
    compile: bool = arg(False, "torch.compile every layer")

    def __post_init__(self) -> None:
        preset(RESTORERS, self.model)
        if self.task not in TASKS:
            raise ValueError(f"expected --task to be one of {', '.join(TASKS)}, got {self.task}")
        if TASKS[self.task].noise != (self.sigma is not None):
            wanted = "needs --sigma, 25 or 5-55 for instance" if TASKS[self.task].noise else "takes no --sigma"
            raise ValueError(f"--task {self.task} {wanted}")
        if TASKS[self.task].noise and self.degrade is not None:
            raise ValueError(f"--task {self.task} takes --sigma; other degradations go with --task paired --degrade")
        if self.degrade is not None and TASKS[self.task].channels[0] != TASKS[self.task].channels[1]:
            raise ValueError(f"--task {self.task} takes pairs with two views of each scene, no --degrade")
        if self.validation_size is not None and self.validation_size < SSIM_WINDOW:
            raise ValueError(
                f"expected --validation-size of at least {SSIM_WINDOW}, the window of SSIM, got {self.validation_size}"
            )
        if self.schedule_scale <= 0:
            raise ValueError(f"expected --schedule-scale above 0, got {self.schedule_scale}")
        if self.hold_out < 0 or self.mixup < 0:
            raise ValueError(f"expected --hold-out and --mixup of 0 or more, got {self.hold_out} and {self.mixup}")
