"""Draws the README's picture of denoising: noisy, restored and true parts of photographs that may be shown.

`python scripts/restoration_picture.py --ckpt runs/denoise-color-IPTV2-Ti --output docs/images/denoise.png`. The photographs are
scikit-image's: astronaut (NASA, public domain) and coffee (Rachel Michetti, CC0). Noise of 25 and 50 of 255 levels.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from iptv2_diffusion.cli.load import load_restorer
from iptv2_diffusion.metrics.fidelity import psnr, to_uint8
from iptv2_diffusion.pictures import grid
from iptv2_diffusion.restoration.inference import restore
from iptv2_diffusion.restoration.protocols import noisy

PARTS = (("astronaut", 25, (0, 110)), ("coffee", 50, (60, 200)))  # name, noise, top and left
SIDE = 240  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists")
    model = load_restorer(args.ckpt).fuse()
    pictures, captions = [], []
    for name, sigma, (top, left) in PARTS:
        photograph = getattr(data, name)()
        degraded = noisy(photograph, sigma)
        inside = np.s_[top : top + SIDE, left : left + SIDE]
        for kind, image in (("noisy", degraded), ("restored", restore(model, degraded, tile=None))):
            pixels = to_uint8(image)
            pictures.append(Image.fromarray(pixels[inside]))
            captions.append(f"{kind}, {psnr(pixels, photograph, peak=255):.2f} dB")
        pictures.append(Image.fromarray(photograph[inside]))
        captions.append(f"{name}; sigma {sigma}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    grid(pictures, captions, columns=3).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
