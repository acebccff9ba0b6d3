from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from dummy import GaussianDenoiser, real_pipeline, seeded, tiny_vae
from PIL import Image
from torch import Tensor

from iptv2_diffusion import IPTV2Pipeline
from iptv2_diffusion.diffusion.schedule import SCHEDULERS, make_scheduler, paper_scheduler

# numpy 2 complains about the way diffusers turns tensors into arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ID2LABEL = {0: "cat, Felis", 1: "dog", 4: "fish"}


def pipeline(scheduler: Any = None, id2label: dict | None = None, **model: Any) -> Any:
    pipe = IPTV2Pipeline(GaussianDenoiser(**model), tiny_vae(), scheduler or paper_scheduler(), id2label)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents_of(pipe: Any, labels: Any = (0, 1), steps: int = 5, seed: int = 0, **options: Any) -> Tensor:
    options = {"generator": torch.Generator().manual_seed(seed), "output_type": "latent"} | options
    return pipe(labels, num_inference_steps=steps, **options).images


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "steps", "learned"),
    [
        ("ddpm", 250, True),
        ("ddpm", 250, False),
        ("ddim", 250, True),
        ("dpm++", 50, True),
        ("unipc", 50, True),
        ("euler", 250, False),
    ],
)
def test_samples_of_gaussian_data_have_its_mean_and_variance(
    name: str, steps: int, learned: bool, prediction_type: str
) -> None:
    config = dict(paper_scheduler().config) | {"prediction_type": prediction_type}
    scheduler = make_scheduler(name, config, learned_sigma=learned)
    pipe = pipeline(scheduler, out_channels=8 if learned else 4, sample_size=32, prediction_type=prediction_type)
    z = latents_of(pipe, [0, 3], steps, guidance_scale=1.0).double()
    for row, mean in zip(z, (-1.0, 0.5), strict=True):
        assert row.mean().item() == pytest.approx(mean, abs=0.02)  # 4096 samples: standard error 0.006
        assert row.std().item() == pytest.approx(0.4, abs=0.02)


def test_a_learned_variance_reaches_ddpm() -> None:
    """At the upper bound every step adds more noise than at the lower one."""
    low, high = (
        latents_of(pipeline(variance=v, sample_size=32), [2], 25, guidance_scale=1.0).std() for v in (-1.0, 1.0)
    )
    assert high > 1.1 * low


def test_scale_one_is_unguided_and_costs_one_forward_of_b_rows_per_step() -> None:
    pipe = pipeline()
    unguided = latents_of(pipe, guidance_scale=1.0)
    assert pipe.transformer.rows == [2] * 5
    generator, scheduler = torch.Generator().manual_seed(0), paper_scheduler()
    scheduler.set_timesteps(5)
    z = torch.randn(2, 4, 8, 8, generator=generator)
    for t in scheduler.timesteps:
        step: Any = scheduler.step(pipe.transformer(z, t, torch.tensor([0, 1])).sample, int(t), z, generator=generator)
        z = step.prev_sample
    torch.testing.assert_close(unguided, z, rtol=0, atol=1e-6)


def test_guidance_steps_only_the_conditional_rows() -> None:
    pipe = pipeline()
    shapes = []

    def record(_: Any, index: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        shapes.append(tensors["latents"].shape)
        return {}

    latents_of(pipe, guidance_scale=2.0, callback_on_step_end=record)
    assert pipe.transformer.rows == [4] * 5
    assert set(shapes) == {(2, 4, 8, 8)}


def test_guidance_channels() -> None:
    pipe = pipeline()
    all_channels, three, none = (
        latents_of(pipe, guidance_scale=scale, guidance_channels=channels)
        for scale, channels in ((3.0, None), (3.0, 3), (1.0, None))
    )
    assert torch.equal(three[:, :3], all_channels[:, :3])
    assert torch.equal(three[:, 3:], none[:, 3:])
    assert not torch.allclose(all_channels[:, 3:], none[:, 3:])
    assert torch.equal(all_channels, latents_of(pipe, guidance_scale=3.0, guidance_channels=4))


def test_guidance_interval() -> None:
    pipe = pipeline()
    full, none = latents_of(pipe, guidance_scale=3.0), latents_of(pipe, guidance_scale=1.0)
    assert torch.equal(latents_of(pipe, guidance_scale=3.0, guidance_interval=(0.0, 1.0)), full)
    for empty in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        assert torch.equal(latents_of(pipe, guidance_scale=3.0, guidance_interval=empty), none)
    pipe.transformer.rows.clear()
    latents_of(pipe, guidance_scale=3.0, guidance_interval=(0.2, 0.6))  # of t = 999, 749, 500, 250, 0
    assert pipe.transformer.rows == [2, 2, 4, 4, 2]


def test_autoguidance() -> None:
    pipe, guide = pipeline(), GaussianDenoiser(std=0.9)
    unguided = latents_of(pipe, guidance_scale=1.0)
    assert torch.equal(latents_of(pipe, guidance_scale=2.5, guide_transformer=GaussianDenoiser()), unguided)
    pipe.transformer.rows.clear()
    assert not torch.allclose(latents_of(pipe, guidance_scale=2.5, guide_transformer=guide), unguided, atol=0.01)
    assert pipe.transformer.rows == guide.rows == [2] * 5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_image_depends_on_its_own_generator_only(name: str) -> None:
    """With the real network; its convolutions may round differently at another batch size, the noise may not differ."""
    pipe = real_pipeline(name)
    labels, seeds = [0, 1, 2, 3], [10, 11, 12, 13]
    noise = pipe.prepare_latents((4, 4, 16, 16), seeded(*seeds))
    together = pipe(labels, generator=seeded(*seeds), num_inference_steps=4, output_type="np").images
    for row, (label, seed) in enumerate(zip(labels, seeds, strict=True)):
        assert torch.equal(pipe.prepare_latents((1, 4, 16, 16), seeded(seed))[0], noise[row])
        alone = pipe([label], generator=seeded(seed), num_inference_steps=4, output_type="np").images
        assert np.abs(alone[0] - together[row]).max() * 255 <= 1
    again = pipe(labels, generator=seeded(*seeds), num_inference_steps=4, output_type="np").images
    assert again.tobytes() == together.tobytes()
    other = pipe([3, 1, 2, 0], generator=seeded(99, 11, 12, 98), num_inference_steps=4, output_type="np").images
    assert other[1:3].tobytes() == together[1:3].tobytes()  # same place in a micro-batch of the same size


def test_step_noise_is_the_images_own_to_the_bit() -> None:
    """A denoiser without rounding differences between batch sizes leaves the noise of DDPM's steps alone."""
    pipe = pipeline()
    together = latents_of(pipe, [0, 3], generator=seeded(1, 2))
    alone = latents_of(pipe, [3], generator=seeded(2))
    assert torch.equal(together[1:], alone)


def test_a_generator_of_the_batch_draws_in_diffusers_order() -> None:
    pipe = pipeline()
    expected = torch.randn(2, 4, 8, 8, generator=seeded(3)[0])
    assert torch.equal(pipe.prepare_latents((2, 4, 8, 8), seeded(3)[0]), expected)
    assert torch.equal(latents_of(pipe, seed=3), latents_of(pipe, seed=3))
    assert not torch.equal(latents_of(pipe, seed=3), latents_of(pipe, seed=4))


def test_given_latents_are_the_starting_noise() -> None:
    pipe = pipeline(make_scheduler("euler", paper_scheduler().config, learned_sigma=True))
    noise = torch.randn(2, 4, 8, 8, generator=seeded(0)[0])
    assert torch.equal(latents_of(pipe, latents=noise), latents_of(pipe, seed=0))
    assert torch.equal(latents_of(pipe, latents=noise, generator=None), latents_of(pipe, seed=0))


@pytest.mark.parametrize(
    "scheduler_class",
    [DPMSolverMultistepScheduler, UniPCMultistepScheduler, DDIMScheduler, EulerDiscreteScheduler],
)
def test_schedulers_made_from_a_learned_range_config_get_no_variance(scheduler_class: Any) -> None:
    scheduler = scheduler_class.from_config(paper_scheduler().config)
    assert scheduler.config["variance_type"] == "learned_range"
    pipe, plain = pipeline(scheduler, variance=0.7), pipeline(scheduler, variance=-0.7)
    z = latents_of(pipe)
    assert z.shape == (2, 4, 8, 8)
    assert torch.equal(z, latents_of(plain))


def test_the_callback_sees_and_may_replace_the_latents() -> None:
    pipe, seen = pipeline(), []

    def callback(pipe_: Any, index: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        assert pipe_ is pipe
        seen.append((index, int(t)))
        return {"latents": tensors["latents"] * 0 + 7} if index == 4 else tensors

    z = latents_of(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["latents"])
    assert seen == [(0, 999), (1, 749), (2, 500), (3, 250), (4, 0)]
    assert z.unique().tolist() == [7]


def test_the_number_of_steps_defaults_to_the_schedulers() -> None:
    pipe = pipeline()
    pipe([0], output_type="latent")
    assert len(pipe.transformer.rows) == 250
    pipe.scheduler = make_scheduler("dpm++", pipe.scheduler.config, learned_sigma=True)
    pipe.transformer.rows.clear()
    pipe([0], output_type="latent")
    assert len(pipe.transformer.rows) == 25


def test_the_null_label_is_the_models() -> None:
    for classes in (1, 5, 1000):
        pipe = pipeline(num_classes=classes)
        latents_of(pipe, [0], steps=1)
        assert pipe.transformer.labels[0].tolist() == [0, classes]


def test_output_types_agree() -> None:
    pipe = pipeline()
    z = latents_of(pipe)
    expected = pipe.vae.decode(z / 0.5).sample.clamp(-1, 1) / 2 + 0.5
    outputs: dict[str, Any] = {kind: latents_of(pipe, output_type=kind) for kind in ("pt", "np", "pil")}
    torch.testing.assert_close(outputs["pt"], expected)
    np.testing.assert_array_equal(outputs["np"], outputs["pt"].permute(0, 2, 3, 1).numpy())
    assert isinstance(outputs["pil"][0], Image.Image)
    pixels = np.stack([np.asarray(image) for image in outputs["pil"]])
    np.testing.assert_array_equal(pixels, (outputs["np"] * 255).round().astype(np.uint8))
    assert torch.equal(latents_tuple(pipe)[0], z)


def latents_tuple(pipe: Any) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return pipe([0, 1], num_inference_steps=5, generator=generator, output_type="latent", return_dict=False)


def test_other_sizes_rectangular_too() -> None:
    pipe = pipeline()
    assert latents_of(pipe, height=32, width=20).shape == (2, 4, 16, 10)
    assert latents_of(pipe, output_type="pt", height=32).shape == (2, 3, 32, 16)


def test_half_precision_starts_from_the_same_noise() -> None:
    pipe = pipeline()
    noise, full = pipe.prepare_latents((2, 4, 8, 8), seeded(0)[0]), latents_of(pipe)
    half = latents_of(pipe.to(torch.bfloat16))
    assert torch.equal(pipe.prepare_latents((2, 4, 8, 8), seeded(0)[0]), noise)
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [5]}, r"0 to 4, got \[5\]"),
        ({"labels": [-1]}, r"0 to 4, got \[-1\]"),
        ({"labels": []}, "at least one class label"),
        ({"labels": ["cow"]}, "unknown class name 'cow'"),
        ({"steps": 0}, "whole number from 1 to 1000, got 0"),
        ({"steps": 1001}, "whole number from 1 to 1000, got 1001"),
        ({"generator": seeded(1)}, "one generator per image, got 1 for 2"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"shape \(2, 4, 8, 8\), got \(1, 4, 8, 8\)"),
        ({"output_type": "jpg"}, "pil, np, pt, latent, got 'jpg'"),
        ({"guidance_channels": 5}, "1 to 4, or None for all, got 5"),
        ({"guidance_interval": (0.9, 0.1)}, "0 <= low <= high <= 1"),
        ({"guidance_scale": float("inf")}, "finite"),
        ({"guide_transformer": GaussianDenoiser(num_classes=6)}, "num_classes 5, as the transformer, got 6"),
        ({"guide_transformer": GaussianDenoiser(in_channels=3)}, "in_channels 4, as the transformer, got 3"),
        ({"cache_interval": 0}, "whole number of steps from 1, got 0"),
        ({"height": 15}, "multiples of 2, 2 of the VAE"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "a step callback can get"),
    ],
)
def test_bad_requests_are_refused_before_any_work(options: dict[str, Any], message: str) -> None:
    pipe = pipeline(id2label=ID2LABEL)
    with pytest.raises(ValueError, match=message):
        latents_of(pipe, **options)
    assert pipe.transformer.rows == []


def test_components_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variance_type='fixed_small'"):
        latents_of(pipeline(out_channels=4))
    with pytest.raises(ValueError, match="works on 3 latent channels, the VAE has 4"):
        pipeline(in_channels=3)
    with pytest.raises(ValueError, match=r"classes 0 to 4, got \[5\]"):
        pipeline(id2label={5: "bird"})


def test_labels_by_name() -> None:
    pipe = pipeline(id2label=ID2LABEL)
    assert pipe.labels == {"cat": 0, "cat, felis": 0, "dog": 1, "felis": 0, "fish": 4}
    assert pipe.get_label_ids(["FELIS", "fish"]) == [0, 4]
    assert pipe.get_label_ids("dog") == [1]
    assert torch.equal(latents_of(pipe, ["felis", 1]), latents_of(pipe, torch.tensor([0, 1])))
    assert torch.equal(latents_of(pipe, "dog"), latents_of(pipe, 1))
    with pytest.raises(ValueError, match="no class names"):
        pipeline().get_label_ids("dog")


def test_models_of_a_thousand_classes_know_imagenet() -> None:
    pipe = pipeline(num_classes=1000)
    assert pipe.get_label_ids(["golden retriever", "Tinca tinca"]) == [207, 0]
    assert "crane" not in pipe.labels


def test_fuse_and_unfuse_are_the_transformers() -> None:
    pipe = pipeline()
    assert pipe.fuse() is pipe
    assert pipe.transformer.fused
    assert pipe.unfuse() is pipe
    assert not pipe.transformer.fused
