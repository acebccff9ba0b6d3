"""Train the small AutoencoderKL of the embedded default: 128x128 pictures <-> 4x16x16 latents.

    python scripts/train_autoencoder.py --data-path fluent_emoji_3d --output runs/autoencoder

Charbonnier distance (nearly quadratic, since PSNR is the measure) plus a weak KL term, on random crops (64 pixels, then 128),
with an exponential moving average; `--precision bf16` pays on CPUs with instructions for it.
The run resumes by itself from `last.pt` in the output folder; every step's crops come from (seed, step). At the end the
latents are shifted and scaled per channel to mean 0 and standard deviation 1 on the training pictures, by folding the
affine map into `quant_conv` and `post_quant_conv`; `scaling_factor` is then 1.
"""

import argparse
import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tqdm import tqdm

from iptv2_diffusion.data.emoji import load_emoji

CHANNELS = (24, 48, 64, 80)  # 1.39 M parameters
CROPS = ((0.0, 64, 32), (0.6, 128, 8))  # from this share of the steps on: pixels, batch
MARGIN = 16  # white pixels around a picture, so that full-size crops move, too
KL_WEIGHT = 2e-5  # times the mean over latent elements; from 2e-4 on a latent channel turns to noise
CHARBONNIER_EPS = 1e-1


def build() -> Any:
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": CHANNELS,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
        "sample_size": 128,
        "scaling_factor": 1.0,
        "force_upcast": False,
    }
    return AutoencoderKL(**settings).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def crops(images: torch.Tensor, size: int, batch: int, generator: torch.Generator) -> torch.Tensor:
    """(batch, 3, size, size) in [-1, 1]: random crops, half of them mirrored."""
    picks = torch.randint(len(images), (batch,), generator=generator)
    corners = torch.randint(images.shape[-1] - size + 1, (batch, 2), generator=generator).tolist()
    cut = torch.stack(
        [images[i, :, y : y + size, x : x + size] for i, (y, x) in zip(picks.tolist(), corners, strict=True)]
    )
    mirrored = torch.rand(batch, generator=generator) < 0.5
    cut = torch.where(mirrored[:, None, None, None], cut.flip(-1), cut)
    return (cut.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def stage(progress: float) -> tuple[int, int]:
    """Pixels and batch of the last stage that has begun; `progress` in [0, 1)."""
    return next((size, batch) for start, size, batch in reversed(CROPS) if progress >= start)


def loss_of(vae: Any, x: torch.Tensor, generator: torch.Generator, autocast: bool = False) -> torch.Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        posterior = DiagonalGaussianDistribution(vae.encode(x).latent_dist.parameters.float())
        decoded = vae.decode(posterior.sample(generator)).sample
    error = decoded.float() - x
    distance = (error.square() + CHARBONNIER_EPS**2).sqrt().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return distance + KL_WEIGHT * kl


@torch.no_grad()
def moments(vae: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and standard deviation, each (N, 4, 16, 16)."""
    posteriors = [vae.encode(chunk.float() / 127.5 - 1).latent_dist for chunk in images.split(32)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


@torch.no_grad()
def psnr(vae: Any, images: torch.Tensor) -> float:
    """Mean over pictures, in dB, of the decoded posterior mean rounded to 8 bits."""
    values = []
    for chunk in images.split(32):
        decoded = vae.decode(vae.encode(chunk.float() / 127.5 - 1).latent_dist.mean).sample
        pixels = ((decoded + 1) * 127.5).round().clamp(0, 255)
        values.append(10 * torch.log10(255**2 / (pixels - chunk.float()).square().flatten(1).mean(1)))
    return torch.cat(values).mean().item()


@torch.no_grad()
def normalise(vae: Any, images: torch.Tensor) -> None:
    """Fold the per-channel statistics of sampled latents into the 1x1 convolutions around the latent space."""
    mean, std = moments(vae, images)
    shift = mean.mean((0, 2, 3))
    scale = (mean.var((0, 2, 3)) + std.square().mean((0, 2, 3))).sqrt()
    inner, outer = vae.quant_conv, vae.post_quant_conv
    inner.weight[:4] /= scale[:, None, None, None]
    inner.bias[:4] = (inner.bias[:4] - shift) / scale
    inner.bias[4:] -= 2 * scale.log()
    outer.bias += outer.weight[:, :, 0, 0] @ shift
    outer.weight *= scale[None, :, None, None]


def save(path: Path, **state: object) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(args: argparse.Namespace) -> None:
    data = load_emoji(args.data_path)
    training, held_out = data.images[~data.held_out], data.images[data.held_out]
    padded = F.pad(training, (MARGIN,) * 4, value=255)
    torch.manual_seed(args.seed)
    vae = build()
    average = copy.deepcopy(vae).requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    checkpoint, start = args.output / "last.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["vae"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    if args.compile:
        vae.encoder.compile()
        vae.decoder.compile()
    bar = tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=10)
    for step in bar:
        progress = step / args.steps
        size, batch = stage(progress)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        loss = loss_of(vae, crops(padded, size, batch, generator), generator, args.precision == "bf16")
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for old, new in zip(average.parameters(), vae.parameters(), strict=True):
                old.lerp_(new, 1 - decay)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            record = {
                "step": step + 1,
                "loss": round(loss.item(), 5),
                "held_out_psnr": round(psnr(average, held_out), 3),
            }
            bar.write(json.dumps(record))
            with (args.output / "stats.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            weights = {"vae": vae.state_dict(), "average": average.state_dict()}
            save(checkpoint, step=step + 1, optimizer=optimizer.state_dict(), **weights)
    normalise(average, training)
    average.save_pretrained(args.output / "vae")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints and held-out measurements")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="as of train.py")
    parser.add_argument("--compile", action="store_true", help="torch.compile both halves; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
