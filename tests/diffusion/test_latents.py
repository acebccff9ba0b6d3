import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from dummy import seeded, tiny_vae
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from iptv2_diffusion import LatentCodec
from iptv2_diffusion.diffusion import vae_files
from iptv2_diffusion.diffusion.latents import center_crop

SD_VAE_CONFIG = {
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}


def images(count: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def tiny_taesd() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )


@pytest.mark.parametrize("shift", [None, 0.25])
def test_latents_are_the_shifted_and_scaled_posterior(shift: float | None) -> None:
    vae: Any = tiny_vae(shift_factor=shift)
    codec = LatentCodec(vae)
    posterior = vae.encode(images()).latent_dist
    noise = torch.randn(3, 4, 8, 8, generator=seeded(0)[0])
    raw = posterior.mean + posterior.std * noise
    torch.testing.assert_close(codec.encode(images(), noise=noise), (raw - (shift or 0)) * 0.5)
    mean, std = codec.moments(images())
    torch.testing.assert_close(mean, (posterior.mean - (shift or 0)) * 0.5)
    torch.testing.assert_close(std, posterior.std * 0.5)
    torch.testing.assert_close(codec.decode((raw - (shift or 0)) * 0.5), vae.decode(raw).sample.clamp(-1, 1))


def test_one_generator_per_image_makes_latents_independent_of_the_batch() -> None:
    codec = LatentCodec(tiny_vae())
    together = codec.encode(images(), generator=seeded(5, 6, 7))
    mean, std = codec.moments(images())
    for row, generator in enumerate(seeded(5, 6, 7)):
        noise = torch.randn(1, 4, 8, 8, generator=generator)[0]
        torch.testing.assert_close(together[row], mean[row] + std[row] * noise, rtol=0, atol=0)
    alone = codec.encode(images()[1:2], generator=seeded(6))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_decoded_images_are_clamped_and_quantised_both_ways() -> None:
    codec = LatentCodec(tiny_vae())
    latents = torch.randn(2, 4, 8, 8, generator=seeded(0)[0]) * 3
    decoded = codec.decode(latents)
    assert decoded.shape == (2, 3, 16, 16)
    assert decoded.abs().max() <= 1
    pixels = decoded.double().numpy()
    rounded, truncated = codec.decode_uint8(latents).numpy(), codec.decode_uint8(latents, "truncate").numpy()
    assert rounded.dtype == truncated.dtype == np.uint8
    assert np.abs(rounded - (pixels / 2 + 0.5) * 255).max() <= 0.5001
    excess = np.clip(127.5 * pixels + 128, 0, 255) - truncated
    assert -1e-4 <= excess.min() <= excess.max() < 1 + 1e-4


def test_both_quantisations_give_the_nearest_level_but_for_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """floor(127.5 x + 128) = floor((127.5 x + 127.5) + 1/2): the truncation of DiT is a rounding, with ties going up."""
    codec = LatentCodec(tiny_vae())
    monkeypatch.setattr(codec, "decode", lambda values: values)
    values = torch.rand(100_000, generator=seeded(0)[0]) * 2 - 1
    differ = codec.decode_uint8(values) != codec.decode_uint8(values, "truncate")
    assert differ.double().mean() < 1e-3
    half = torch.tensor([-1 + 0.5 / 127.5], dtype=torch.float64)  # half a level above black
    assert (codec.decode_uint8(half).tolist(), codec.decode_uint8(half, "truncate").tolist()) == ([0], [1])


@pytest.mark.parametrize("force_upcast", [True, False])
def test_half_precision_decodes_in_float32_where_asked(force_upcast: bool) -> None:
    half, full = tiny_vae(force_upcast=force_upcast), tiny_vae()
    torch.nn.Module.to(half, torch.bfloat16)
    full.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    latents = torch.randn(1, 4, 8, 8, generator=seeded(0)[0])
    decoded = LatentCodec(half).decode(latents)
    assert decoded.dtype == torch.float32
    assert half.dtype == torch.bfloat16  # as it was
    assert torch.equal(decoded, LatentCodec(full).decode(latents)) == force_upcast


def test_a_vae_without_posterior_has_no_spread() -> None:
    codec = LatentCodec(tiny_taesd())
    assert (codec.factor, codec.channels, codec.scale, codec.shift) == (4, 4, 1.0, 0.0)
    mean, std = codec.moments(images())
    assert std.abs().max() == 0
    assert torch.equal(codec.encode(images()), mean)
    assert codec.decode(mean).shape == (3, 3, 16, 16)


def test_bad_inputs_are_refused() -> None:
    codec = LatentCodec(tiny_vae())
    with pytest.raises(ValueError, match=r"multiples of the VAE's factor 2, got 16x15"):
        codec.encode(torch.zeros(1, 3, 16, 15))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        codec.encode(torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match="one generator per image, got 2 for 3"):
        codec.encode(images(), generator=seeded(0, 1))
    with pytest.raises(ValueError, match="noise of shape"):
        codec.encode(images(), noise=torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"latents \(B, 4, h, w\)"):
        codec.decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="round, truncate, got 'floor'"):
        codec.decode_uint8(torch.zeros(1, 4, 8, 8), "floor")


@pytest.mark.parametrize("vae", [tiny_vae(), tiny_taesd()], ids=["AutoencoderKL", "AutoencoderTiny"])
def test_from_pretrained_loads_the_class_in_the_config(vae: Any, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path)
    codec = LatentCodec.from_pretrained(str(tmp_path), dtype=torch.float64)
    assert type(codec.vae) is type(vae)
    assert codec.vae.dtype == torch.float64
    assert not codec.vae.training
    assert not any(parameter.requires_grad for parameter in codec.vae.parameters())
    latents = torch.randn(1, 4, 4, 4, generator=seeded(0)[0])
    expected = LatentCodec(vae).decode(latents)
    torch.testing.assert_close(LatentCodec.from_pretrained(str(tmp_path)).decode(latents), expected, rtol=0, atol=0)


def test_an_absent_vae_says_what_to_download_and_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nmore of it")

    monkeypatch.setattr(vae_files, "model_info", unreachable)
    with pytest.raises(FileNotFoundError) as caught:
        LatentCodec.from_pretrained("stabilityai/sd-vae-not-here")
    message = str(caught.value)
    assert "hf download stabilityai/sd-vae-not-here config.json diffusion_pytorch_model.safetensors" in message
    assert "--vae FOLDER" in message
    assert "\n" not in message


def test_what_is_no_vae_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"or a hub id, got \./nowhere"):
        LatentCodec.from_pretrained("./nowhere")
    with pytest.raises(FileNotFoundError, match=r"missing: \['config.json'"):
        LatentCodec.from_pretrained(str(tmp_path))
    tiny_vae().save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "diffusion_pytorch_model.safetensors"
    good = config.read_text(), weights.read_bytes()

    weights.write_bytes(good[1][: len(good[1]) // 2])
    with pytest.raises(ValueError, match="cannot load the VAE in") as caught:
        LatentCodec.from_pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)
    save_file({name: w for name, w in load_bytes(good[1], tmp_path).items() if "conv_out" not in name}, weights)
    with pytest.raises(ValueError, match="4 keys differ, first "):
        LatentCodec.from_pretrained(str(tmp_path))
    weights.write_bytes(good[1])
    config.write_text(json.dumps(json.loads(good[0]) | {"block_out_channels": [16, 16]}))
    with pytest.raises(ValueError, match=r"cannot load the VAE in|keys differ"):
        LatentCodec.from_pretrained(str(tmp_path))
    config.write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ValueError, match="AutoencoderKL or AutoencoderTiny as its class, got 'VQModel'"):
        LatentCodec.from_pretrained(str(tmp_path))
    config.write_text("{")
    with pytest.raises(ValueError, match=r"config.json in .* is not a diffusers model's"):
        LatentCodec.from_pretrained(str(tmp_path))


def load_bytes(content: bytes, folder: Path) -> dict[str, Tensor]:
    copy = folder / "copy.tmp"
    copy.write_bytes(content)
    return load_file(copy)


@pytest.mark.slow
def test_the_sd_vae_configuration_loads_from_disk(tmp_path: Path) -> None:
    """Random weights under the key names of the published file, whose attention layers are called as they were then."""
    vae: Any = AutoencoderKL(**SD_VAE_CONFIG)  # type: ignore[arg-type]
    vae.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for new, old in renamed.items():
        weights = {name.replace(f".{new}.", f".{old}."): weight for name, weight in weights.items()}
    save_file(weights, path)
    codec = LatentCodec.from_pretrained(str(tmp_path))
    assert (codec.factor, codec.channels, codec.scale, codec.shift) == (8, 4, 0.18215, 0.0)
    image = images(1, 32)
    posterior = vae.eval().encode(image).latent_dist
    latents = codec.encode(image, generator=seeded(3)[0])
    noise = torch.randn(1, 4, 4, 4, generator=seeded(3)[0])
    torch.testing.assert_close(latents, (posterior.mean + posterior.std * noise).detach() * 0.18215)
    assert codec.decode_uint8(latents).shape == (1, 3, 32, 32)


def test_center_crop_halves_with_box_first(real_images: dict[str, Tensor]) -> None:
    photograph = real_images["astronaut"].permute(1, 2, 0).numpy()  # 512 x 512
    cropped = np.asarray(center_crop(Image.fromarray(photograph), 128)).astype(float)
    half = photograph.reshape(256, 2, 256, 2, 3).mean((1, 3))
    quarter = half.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(cropped - quarter).max() <= 2  # each halving rounds along both axes
    plain = np.asarray(Image.fromarray(photograph).resize((128, 128), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(plain - quarter).max() > 10


@pytest.mark.parametrize(("width", "height"), [(130, 100), (101, 100), (100, 177), (100, 100)])
def test_center_crop_takes_the_middle(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top = (width - 100) // 2, (height - 100) // 2
    cropped = np.asarray(center_crop(Image.fromarray(pixels), 100))
    assert np.array_equal(cropped, pixels[top : top + 100, left : left + 100])


@pytest.mark.parametrize(("width", "height", "size"), [(37, 61, 64), (500, 333, 64), (127, 500, 64), (64, 65, 64)])
def test_center_crop_size(width: int, height: int, size: int) -> None:
    assert center_crop(Image.new("RGB", (width, height)), size).size == (size, size)
