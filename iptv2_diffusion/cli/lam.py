"""Draw Local Attribution Maps (Figure 2): which pixels of a degraded image act on a patch of the restored one.

One picture with the input and one map for each --ckpt, with its diffusion index: the larger, the more pixels act.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.common import allow_tf32, run, say
from iptv2_diffusion.config import add_flags, arg, from_flags


@dataclass(frozen=True, kw_only=True)
class LamConfig:
    ckpt: tuple[str, ...] = arg(help="restorers: training runs, checkpoints, saved models, .safetensors files, hub ids")
    image: tuple[Path, ...] = arg(help="degraded image; for dual-pixel restorers the left and the right view")
    patch: tuple[int, int] = arg(help="Y X of the patch's upper left corner, in pixels")
    output: Path = arg(help="new PNG")
    side: int = arg(16, "pixels a side of the patch")
    fold: int = arg(50, "steps from a blurred image to the image")
    batch_size: int = arg(1, "steps that run at once")
    device: str | None = arg(None, "none: a GPU where there is one")

    def __post_init__(self) -> None:
        if len(self.image) not in (1, 2):
            raise ValueError(f"expected one --image or two views, got {len(self.image)}")
        for name in ("side", "fold", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(self, name)}")
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"expected a name that ends with .png as --output, got {self.output}")


def main() -> None:
    run(_draw)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, LamConfig)
    return parser


def _draw() -> None:
    config = from_flags(LamConfig, make_parser().parse_args())

    from iptv2_diffusion.cli.load import choose_device, load_restorer
    from iptv2_diffusion.files import written_whole
    from iptv2_diffusion.restoration.attribution import local_attribution, picture, pixels_holding

    allow_tf32(False)  # figures are compared
    device = choose_device(config.device)
    with written_whole(config.output) as unfinished:
        models = {ckpt: load_restorer(ckpt).fuse().to(device) for ckpt in config.ckpt}
        images = {name: _image(config.image, model.config["in_channels"]) for name, model in models.items()}
        maps = {}
        for name, model in models.items():
            maps[name] = found = local_attribution(
                model, images[name].to(device), config.patch, config.side, config.fold, batch=config.batch_size
            )
            most = pixels_holding(found.map)
            say(f"{name}: diffusion index {found.diffusion_index:.2f}, 95 % of the attribution on {most} pixels")
        shown = max(images.values(), key=len)[:3]  # in colour where any is
        picture(shown, config.patch, config.side, maps).save(unfinished, format="PNG")
    say(f"{config.output} shows the map of {', '.join(models)}")


def _image(paths: tuple[Path, ...], channels: int) -> Any:
    """(channels, H, W) in [0, 1], gray where that is 1; two views one after the other."""
    import torch

    from iptv2_diffusion.data.image_io import read_pixels
    from iptv2_diffusion.data.patches import to_tensor

    expected = max(channels // 3, 1)
    if len(paths) != expected:
        raise ValueError(f"expected {expected} --image for {channels} input channels, got {len(paths)}")
    views = [read_pixels(path, gray=channels == 1) for path in paths]
    if len({(view.shape, view.dtype) for view in views}) > 1:
        raise ValueError(f"expected views of one size and depth, got {' and '.join(str(view.shape) for view in views)}")
    return torch.cat([to_tensor(view) for view in views])


if __name__ == "__main__":
    main()
