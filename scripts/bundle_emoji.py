"""Put the embedded default together: the autoencoder with its training latents, then the denoiser trained on them.

    python scripts/bundle_emoji.py latents --vae runs/autoencoder/vae --data-path fluent_emoji_3d
    python scripts/bundle_emoji.py denoiser --checkpoint runs/emoji --scheduler dpm++

Both write half precision into the package's assets and print what was lost by that. Existing files are replaced only
with --replace.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors.torch import save_file
from train_autoencoder import moments, psnr

from iptv2_diffusion import IPTV2Pipeline, IPTV2Transformer2DModel
from iptv2_diffusion.cli.sources import EMOJI, EMOJI_LATENTS
from iptv2_diffusion.data.emoji import CATEGORIES, held_out_mask, load_emoji
from iptv2_diffusion.data.sources import CLASS_NAMES, load_moments
from iptv2_diffusion.diffusion.schedule import make_scheduler
from iptv2_diffusion.engine import newest


def replace_folder(source: Path, target: Path, replace: bool) -> None:
    if target.exists() and not replace:
        raise SystemExit(f"{target} exists; pass --replace")
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)


def forget_origin(folder: Path) -> None:
    """Drops the folder that diffusers records as a model's name."""
    path = folder / "config.json"
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key != "_name_or_path"}
    path.write_text(json.dumps(settings, indent=2) + "\n")


@torch.no_grad()
def bundle_latents(args: argparse.Namespace) -> None:
    if EMOJI_LATENTS.exists() and not args.replace:
        raise SystemExit(f"{EMOJI_LATENTS} exists; pass --replace")
    data = load_emoji(args.data_path)
    exact = AutoencoderKL.from_pretrained(args.vae).eval()
    with tempfile.TemporaryDirectory(dir=EMOJI.parent) as scratch:
        exact.half().save_pretrained(Path(scratch) / "vae")
        forget_origin(Path(scratch) / "vae")
        replace_folder(Path(scratch) / "vae", EMOJI / "vae", args.replace)
    vae = AutoencoderKL.from_pretrained(EMOJI / "vae").float().eval()
    mean, std = moments(vae, data.images)
    labels = torch.stack([data.labels, data.sublabels], dim=1).to(torch.uint8)
    tensors = {"mean": mean.half().contiguous(), "std": std.half().contiguous(), "labels": labels}
    save_file(tensors, EMOJI_LATENTS, metadata={CLASS_NAMES: json.dumps(data.class_names)})
    held_out = held_out_mask(len(mean))
    sampled = (mean + std * torch.randn(std.shape, generator=torch.Generator().manual_seed(0)))[held_out]
    print("parameters", sum(p.numel() for p in vae.parameters()))
    print("held-out PSNR, dB", round(psnr(vae, data.images[held_out]), 3))
    print("held-out channel means", sampled.mean((0, 2, 3)).tolist())
    print("held-out channel standard deviations", sampled.std((0, 2, 3)).tolist())
    print("mean posterior standard deviation", std.mean().item())


def bundle_denoiser(args: argparse.Namespace) -> None:
    folder = newest(args.checkpoint)
    if folder is None:
        raise SystemExit(f"no checkpoint in {args.checkpoint}")
    model = IPTV2Transformer2DModel.from_pretrained(folder / "model").fuse()
    trained: Any = DDPMScheduler.from_pretrained(folder / "scheduler")
    pipeline = IPTV2Pipeline(
        transformer=model.half(),
        vae=AutoencoderKL.from_pretrained(EMOJI / "vae").half(),
        scheduler=make_scheduler(args.scheduler, trained.config, learned_sigma=False),
        id2label=dict(enumerate(load_moments(EMOJI_LATENTS).class_names or CATEGORIES)),
    )
    with tempfile.TemporaryDirectory(dir=EMOJI.parent) as scratch:
        pipeline.save_pretrained(scratch)
        forget_origin(Path(scratch) / "transformer")
        for part in ("transformer", "scheduler", "model_index.json"):
            target = EMOJI / part
            if target.is_file() and args.replace:
                target.unlink()
            replace_folder(Path(scratch) / part, target, args.replace)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    latents = commands.add_parser("latents")
    latents.add_argument("--vae", type=Path, required=True)
    latents.add_argument("--data-path", type=Path, required=True)
    latents.set_defaults(run=bundle_latents)
    denoiser = commands.add_parser("denoiser")
    denoiser.add_argument("--checkpoint", type=Path, required=True, help="output folder of train.py")
    denoiser.add_argument("--scheduler", default="dpm++", help="the sampler to store with the model")
    denoiser.set_defaults(run=bundle_denoiser)
    for command in (latents, denoiser):
        command.add_argument("--replace", action="store_true")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
