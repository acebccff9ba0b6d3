"""Draws the README's pictures of restoration: degraded, restored and true parts of photographs that may be shown.

    python scripts/restoration_picture.py --task derain --output docs/images/derain.png

takes the bundled restorer of the task; `--ckpt` takes another. The photographs come with scikit-image: astronaut (NASA,
public domain), coffee (Rachel Michetti, CC0), camera (Lav Varshney, CC0) and coins (Brooklyn Museum, no known restrictions).
The network reads noise that nothing has clipped or rounded; captions tell the PSNR of what is shown, in 8 bits.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from iptv2_diffusion import IPTV2Restorer, load_restorer
from iptv2_diffusion.data.degradations import degrade_picture
from iptv2_diffusion.metrics.fidelity import psnr, to_uint8
from iptv2_diffusion.pictures import grid
from iptv2_diffusion.restoration.inference import restore
from iptv2_diffusion.rng import derived_generator

DRAWN = {  # task: photograph, what is done to it, top and left of the part that is shown
    "denoise-color": (("astronaut", "awgn:25", (0, 110)), ("coffee", "awgn:50", (60, 200))),
    "denoise-gray": (("camera", "awgn:25", (60, 160)), ("coins", "awgn:50", (20, 40))),
    "derain": (("astronaut", "rain:0.05,quantize", (0, 110)), ("coffee", "rain:0.2,quantize", (60, 200))),
    "motion-deblur": (
        ("astronaut", "motion:17,awgn:1,quantize", (0, 110)),
        ("coffee", "motion:25,awgn:1,quantize", (60, 200)),
    ),
}
SIDE = 240  # pixels


def strip(model: IPTV2Restorer, row: int, name: str, degrade: str, corner: tuple[int, int]) -> dict[str, Image.Image]:
    """Pictures of SIDE pixels by caption: degraded, restored, true."""
    photograph: np.ndarray = getattr(data, name)()
    degraded, clean = degrade_picture(degrade, photograph, derived_generator(0, row))
    inside = np.s_[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]
    truth, pictures = to_uint8(clean), {}
    for kind, image in ((degrade, degraded), ("restored", restore(model, degraded, tile=None))):
        pixels = to_uint8(image)
        caption = f"{kind.removesuffix(',quantize')}: {psnr(pixels, truth, peak=255):.2f} dB"
        pictures[caption] = Image.fromarray(pixels[inside].squeeze())
    return pictures | {name: Image.fromarray(truth[inside].squeeze())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=DRAWN, required=True)
    parser.add_argument("--ckpt", help="none: the bundled one of the task")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists")
    model = load_restorer(args.ckpt or args.task).fuse()
    strips = [strip(model, row, *drawn) for row, drawn in enumerate(DRAWN[args.task])]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    pictures, captions = zip(*(item[::-1] for pictures in strips for item in pictures.items()), strict=True)
    grid(pictures, captions, columns=3).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
