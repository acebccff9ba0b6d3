"""Class-conditional sampling as a diffusers pipeline.

Differences from diffusers' DiT pipeline: the null label is the model's own, only one copy of each latent is stepped,
and the learned variance reaches a scheduler that uses it (DDPM) and no other.
"""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from iptv2_diffusion.diffusion.caching import cached_features, check_caching
from iptv2_diffusion.diffusion.class_names import find_class, imagenet_id2label, names_of
from iptv2_diffusion.diffusion.guidance import Denoise, check_guidance, check_guidance_channels, guided
from iptv2_diffusion.diffusion.latents import Generators, LatentCodec, check_generators
from iptv2_diffusion.diffusion.schedule import (
    check_steps,
    default_steps,
    initial_std,
    keeps_learned_variance,
    model_input,
    set_timesteps,
    without_channel_cut,
)
from iptv2_diffusion.diffusion.sharing import shared_modulation

Labels = int | str | Sequence[int | str] | Tensor
StepCallback = Callable[["IPTV2Pipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]

IMAGENET_CLASSES = 1000


def _to_pt(codec: LatentCodec, latents: Tensor) -> Tensor:
    return codec.decode(latents) / 2 + 0.5


def _to_np(codec: LatentCodec, latents: Tensor) -> Any:
    return _to_pt(codec, latents).permute(0, 2, 3, 1).cpu().numpy()


def _to_pil(codec: LatentCodec, latents: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image) for image in codec.decode_uint8(latents).permute(0, 2, 3, 1).cpu().numpy()]


OUTPUTS: dict[str, Callable[[LatentCodec, Tensor], Any]] = {
    "pil": _to_pil,
    "np": _to_np,  # (B, H, W, 3) float32 in [0, 1]
    "pt": _to_pt,  # (B, 3, H, W) float32 in [0, 1]
    "latent": lambda codec, latents: latents,  # (B, C, h, w) float32, scaled
}


class IPTV2Pipeline(DiffusionPipeline):
    """Draws images of given classes.

    `id2label` maps class ids (strings after a trip through JSON) to names, several of them separated by commas.
    Without it a model of 1000 classes is taken to know ImageNet's, in ImageFolder order.
    """

    model_cpu_offload_seq = "transformer->vae"
    _callback_tensor_inputs = ("latents",)

    transformer: Any
    vae: Any
    scheduler: Any

    def __init__(
        self,
        transformer: ModelMixin,
        vae: ModelMixin,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)
        if id2label is not None:
            _check_names(id2label, self.num_classes)
            id2label = {str(index): name for index, name in id2label.items()}
        self.register_to_config(id2label=id2label)
        if vae is not None and self.vae.config.latent_channels != self.transformer.config.in_channels:
            raise ValueError(
                f"the transformer works on {self.transformer.config.in_channels} latent channels, "
                f"the VAE has {self.vae.config.latent_channels}"
            )

    @property
    def num_classes(self) -> int:
        return self.transformer.config.num_classes

    @property
    def null_label(self) -> int:
        """The label that stands for no class."""
        return self.num_classes

    @cached_property
    def id2label(self) -> dict[int, str]:
        """Class id -> names; empty where nothing is known of the classes."""
        recorded: Mapping | None = self.config["id2label"]
        if recorded is None:
            return imagenet_id2label() if self.num_classes == IMAGENET_CLASSES else {}
        return {int(index): name for index, name in recorded.items()}

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        return names_of(self.id2label)

    @property
    def labels(self) -> dict[str, int]:
        """Lower-case name -> class id, of the names that mean one class only."""
        return {name: ids[0] for name, ids in sorted(self._names.items()) if len(ids) == 1}

    def get_label_ids(self, names: str | Sequence[str]) -> list[int]:
        """The class ids of `names`: each a whole label or one of its parts between commas, in any case."""
        return [find_class(name, self._names) for name in ([names] if isinstance(names, str) else names)]

    def fuse(self) -> "IPTV2Pipeline":
        """The transformer to its inference form, in place: same function, fewer operations."""
        self.transformer.fuse()
        return self

    def unfuse(self) -> "IPTV2Pipeline":
        self.transformer.unfuse()
        return self

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Labels,
        guidance_scale: float = 4.0,
        num_inference_steps: int | None = None,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance_channels: int | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guide_transformer: Any = None,
        cache_interval: int = 1,
        share_modulation: bool = False,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        height: int | None = None,
        width: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        """One image per class label, given as ids or names.

        `num_inference_steps=None` takes the scheduler's usual number, 250 for DDPM. A list of generators holds one
        per image, from which all of its noise comes: the image is then the same whatever the others in its batch.
        `latents` is unscaled noise (B, C, h, w). `guidance_channels=3` is DiT's guidance; `guidance_interval` limits
        guidance to timesteps t with low <= t / num_train_timesteps <= high. `guide_transformer`, a worse model of the
        same classes, latents and noise schedule, on the same device, guides in the place of the null label (see
        `guidance`). With a `cache_interval` of N the inner levels of a U-shaped transformer run on one step of N only
        (see `caching`); with `share_modulation` rows of one label share its modulations (see `sharing`, and not for
        compiled layers). `height` and `width` are in pixels, None for the size the model was made for. The callback
        gets (pipeline, step, t, tensors) and returns the tensors.
        """
        labels = torch.tensor(self.label_ids(class_labels), device=self._execution_device)
        scheduler = without_channel_cut(self.scheduler)
        steps = default_steps(scheduler) if num_inference_steps is None else num_inference_steps
        shape = self.latent_shape(len(labels), height, width)
        check_guidance(guidance_scale, guidance_interval)
        check_guidance_channels(guidance_channels, shape[1])
        self.check_inputs(scheduler, steps, shape, generator, latents, output_type, callback_on_step_end_tensor_inputs)
        self.check_models(guide_transformer, cache_interval)

        set_timesteps(scheduler, steps, self._execution_device)
        denoise = guided(
            _predictor(self.transformer),
            labels,
            self.null_label,
            guidance_scale,
            channels=guidance_channels,
            interval=guidance_interval,
            guide=None if guide_transformer is None else _predictor(guide_transformer),
            num_train_timesteps=scheduler.config.num_train_timesteps,
        )
        noise = self.prepare_latents(shape, generator, latents) * initial_std(scheduler)
        models = self._models(guide_transformer)
        with cached_features(models, cache_interval), shared_modulation(models if share_modulation else []):
            samples = self._sample(denoise, scheduler, noise, generator, callback_on_step_end)
        images = OUTPUTS[output_type](LatentCodec(self.vae), samples)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def check_inputs(
        self,
        scheduler: Any,
        steps: int,
        shape: tuple[int, int, int, int],
        generator: Generators,
        latents: Tensor | None,
        output_type: str,
        callback_tensors: Sequence[str],
    ) -> None:
        """ValueError for whatever cannot work, before any work starts."""
        check_steps(steps, scheduler)
        check_generators(generator, shape[0])
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"expected latents of shape {shape}, got {tuple(latents.shape)}")
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")
        if not set(callback_tensors) <= set(self._callback_tensor_inputs):
            raise ValueError(f"a step callback can get {self._callback_tensor_inputs}, not {list(callback_tensors)}")
        if keeps_learned_variance(scheduler) and self.transformer.config.out_channels != 2 * shape[1]:
            raise ValueError(
                f"the scheduler wants a learned variance, which a transformer of {shape[1]} latent and "
                f"{self.transformer.config.out_channels} output channels does not give: use variance_type='fixed_small'"
            )

    def prepare_latents(
        self, shape: tuple[int, int, int, int], generator: Generators, latents: Tensor | None = None
    ) -> Tensor:
        """Unit-variance noise in float32, whatever the model's precision: the same seed starts from the same noise."""
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        return latents.to(self._execution_device, torch.float32)

    def _sample(
        self,
        denoise: Denoise,
        scheduler: Any,
        latents: Tensor,
        generator: Generators,
        callback: StepCallback | None,
    ) -> Tensor:
        keeps_variance = keeps_learned_variance(scheduler)
        options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        progress: Any = self.progress_bar
        for index, t in enumerate(progress(scheduler.timesteps)):
            prediction = denoise(model_input(scheduler, latents, t), t)
            if not keeps_variance:
                prediction = prediction[:, : latents.shape[1]]
            latents = scheduler.step(prediction, t, latents, **options).prev_sample
            if callback is not None:
                latents = callback(self, index, t, {"latents": latents}).get("latents", latents)
        return latents

    def _models(self, guide: Any) -> list[Any]:
        """Whatever predicts."""
        return [self.transformer] if guide is None else [self.transformer, guide]

    def check_models(self, guide: Any, cache_interval: int) -> None:
        """ValueError unless the guide, if any, fits the transformer, and both the interval of the cache."""
        models = self._models(guide)
        for name in ("in_channels", "num_classes"):
            own, others = (model.config[name] for model in (models[0], models[-1]))
            if own != others:
                raise ValueError(f"expected a guide with {name} {own}, as the transformer, got {others}")
        check_caching(models, cache_interval)

    def label_ids(self, class_labels: Labels) -> list[int]:
        """The ids of labels given as ids or names; ValueError for those that do not exist."""
        given = [class_labels] if isinstance(class_labels, (int, str)) else list(class_labels)
        if not given:
            raise ValueError("expected at least one class label, got none")
        ids = [self.get_label_ids(label)[0] if isinstance(label, str) else operator.index(label) for label in given]
        wrong = [index for index in ids if not 0 <= index < self.num_classes]
        if wrong:
            raise ValueError(f"class labels must be 0 to {self.num_classes - 1}, got {wrong}")
        return ids

    def latent_shape(self, batch: int, height: int | None, width: int | None) -> tuple[int, int, int, int]:
        config, factor = self.transformer.config, LatentCodec(self.vae).factor
        sides = [config.sample_size * factor if side is None else side for side in (height, width)]
        multiple = factor * self.transformer.size_multiple
        if any(side < multiple or side % multiple for side in sides):
            raise ValueError(
                f"height and width must be multiples of {multiple}, {factor} of the VAE times "
                f"{self.transformer.size_multiple} of the transformer, got {sides}"
            )
        return batch, config.in_channels, sides[0] // factor, sides[1] // factor


def _predictor(transformer: Any) -> Callable[[Tensor, Tensor, Tensor], Any]:
    return lambda latents, t, labels: transformer(latents.to(transformer.dtype), t, labels)


def _check_names(id2label: Mapping, num_classes: int) -> None:
    wrong = [index for index in id2label if not 0 <= int(index) < num_classes]
    if wrong:
        raise ValueError(f"id2label must name classes 0 to {num_classes - 1}, got {wrong}")


IPTV2Pipeline.__module__ = "iptv2_diffusion"  # what saved pipelines record, so that files may move
