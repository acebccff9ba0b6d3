"""Training the denoiser: what the engine's loop asks of a task (see `engine.task.Task`).

One sample of the stream is an example of the source with all its random draws: its order comes from (seed, epoch),
everything else from (seed, position).
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel
from iptv2_diffusion.diffusion.dit import DiTDenoiser
from iptv2_diffusion.diffusion.latents import LatentCodec
from iptv2_diffusion.diffusion.objective import Objective, drop_labels, make_objective
from iptv2_diffusion.diffusion.pipeline import IPTV2Pipeline
from iptv2_diffusion.diffusion.schedule import is_flow, make_scheduler
from iptv2_diffusion.diffusion.terms import LossTerms, bin_weights
from iptv2_diffusion.pictures import grid
from iptv2_diffusion.rng import derived_generator, permutation

CLASS_NAMES = "class_names.json"
ORDER, DRAWS, HELD_OUT, PREVIEW = range(4)  # what a derived generator is for
HELD_OUT_TIMESTEPS = 4  # per example, one from each quarter of the schedule
HELD_OUT_BATCH = 64
PREVIEW_IMAGES = 9
PREVIEW_SCALE = 4.0
PREVIEW_STEPS = 25


class Source(Protocol):
    """Examples as in `data.sources`."""

    def __len__(self) -> int: ...

    def example(self, index: int, generator: torch.Generator) -> dict[str, Tensor]: ...


class GenerationTask:
    """Noise or velocity prediction on the latents of `source`, whatever `scheduler` says the model predicts.

    `objective` is one for the scheduler; None: the plain one (see `make_objective`). `held_out` examples, if any, are
    measured but never trained on. `codec` encodes pixels and decodes previews.
    """

    def __init__(
        self,
        model: IPTV2Transformer2DModel | DiTDenoiser,
        scheduler: Any,
        codec: LatentCodec,
        source: Source,
        *,
        class_names: list[str],
        objective: Objective | None = None,
        held_out: Source | None = None,
        label_dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        if len(class_names) != model.config["num_classes"]:
            raise ValueError(f"expected {model.config['num_classes']} class names, got {len(class_names)}")
        self.model, self.scheduler, self.codec = model, scheduler, codec
        self.source, self.held_out = source, held_out
        self.class_names, self.label_dropout, self.seed = class_names, label_dropout, seed
        self.objective = objective or make_objective(scheduler.config)
        config = model.config
        self.latent_shape = (config["in_channels"], config["sample_size"], config["sample_size"])
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    monitor = None

    def prepare(self, device: torch.device) -> None:
        self.codec.vae.to(device)
        self.objective.to(device)

    def sample(self, position: int) -> dict[str, Tensor]:
        epoch, place = divmod(position, len(self.source))
        if self._order[0] != epoch:
            self._order = epoch, permutation(len(self.source), self.seed, ORDER, epoch)
        generator = derived_generator(self.seed, DRAWS, position)
        return self._drawn(self.source.example(int(self._order[1][place]), generator), generator)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | tuple[Tensor, Tensor]]]:
        """Also to be logged: both terms, and the mean squared error of each bin of timesteps, as (values, weights)."""
        labels = drop_labels(batch["label"], self.model.null_label, self.label_dropout, batch["label_draw"])
        terms = self._terms(model, batch, labels)
        bins = bin_weights(batch["t"], self.objective.num_timesteps)
        binned = {f"simple/{name}": (terms.simple, inside) for name, inside in bins.items()}
        return terms.total, {"simple": terms.simple, "bound": terms.bound, **binned}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean squared error of the prediction on the held-out examples, on the same noise every time.

        Also by bins of the timestep, of those that any example has. Timesteps are uniform, and no error is weighted,
        whatever training does.
        """
        if not self.held_out:  # none, or none of so few pictures
            return {}
        count = len(self.held_out) * HELD_OUT_TIMESTEPS
        errors, timesteps = [], []
        for start in range(0, count, HELD_OUT_BATCH):
            batch = self._held_out_batch(range(start, min(start + HELD_OUT_BATCH, count)))
            errors.append(self._terms(model, batch, batch["label"]).simple)
            timesteps.append(batch["t"])
        error, bins = torch.cat(errors), bin_weights(torch.cat(timesteps), self.objective.num_timesteps)
        binned = {
            f"held_out_loss/{name}": error[inside > 0].mean().item() for name, inside in bins.items() if inside.any()
        }
        return {"held_out_loss": error.mean().item()} | binned

    def preview(self, model: Any) -> Image.Image | None:
        """Guided samples of classes spread over all, 25 steps of DPM-Solver++, of a flow by Euler's method."""
        labels = [i * len(self.class_names) // PREVIEW_IMAGES for i in range(PREVIEW_IMAGES)]
        name = "flow" if is_flow(self.scheduler.config) else "dpm++"
        scheduler = make_scheduler(name, self.scheduler.config, learned_sigma=False)
        pipeline = IPTV2Pipeline(transformer=model, vae=self.codec.vae, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generators = [derived_generator(self.seed, PREVIEW, i) for i in range(PREVIEW_IMAGES)]
        options: dict[str, Any] = {"guidance_scale": PREVIEW_SCALE, "num_inference_steps": PREVIEW_STEPS}
        pictures: Any = pipeline(labels, generator=generators, return_dict=False, **options)[0]
        return grid(pictures, [self.class_names[label] for label in labels])

    def export(self, folder: Path) -> None:
        self.scheduler.save_pretrained(folder / "scheduler")
        (folder / CLASS_NAMES).write_text(json.dumps(self.class_names, indent=1) + "\n", encoding="utf-8")

    def _drawn(
        self, example: dict[str, Tensor], generator: torch.Generator, part: int | None = None
    ) -> dict[str, Tensor]:
        """The example with its timestep (from one `part` of the schedule, or from all of it), noise and label draw."""
        draw = self.objective.draw if part is None else partial(self.objective.draw_in_part, part, HELD_OUT_TIMESTEPS)
        return example | {
            "t": draw(generator=generator),
            "noise": torch.randn(self.latent_shape, generator=generator),
            "posterior_noise": torch.randn(self.latent_shape, generator=generator),
            "label_draw": torch.rand((), generator=generator),
        }

    def _held_out_batch(self, numbers: range) -> dict[str, Tensor]:
        assert self.held_out is not None
        rows = []
        for number in numbers:
            index, part = divmod(number, HELD_OUT_TIMESTEPS)
            generator = derived_generator(self.seed, HELD_OUT, number)
            rows.append(self._drawn(self.held_out.example(index, generator), generator, part))
        device = self.codec.vae.device
        return {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}

    def _terms(self, model: nn.Module, batch: Mapping[str, Tensor], labels: Tensor) -> LossTerms:
        z, noise, t = self._latents(batch), batch["noise"], batch["t"]
        output = model(self.objective.add_noise(z, noise, t), t, labels).sample
        return self.objective.terms(output, z, noise, t)

    def _latents(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "latents" in batch:
            return batch["latents"]
        return self.codec.encode(batch["pixels"].float() / 127.5 - 1, noise=batch["posterior_noise"])
