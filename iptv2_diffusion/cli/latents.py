"""`iptv2-data latents`: pictures -> shards of latent moments, divided among processes."""

import signal
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from iptv2_diffusion.cli.common import allow_tf32, say
from iptv2_diffusion.cli.processes import processes
from iptv2_diffusion.cli.sources import recorded_vae, vae_source
from iptv2_diffusion.data.hf_pictures import HFPictures, hf_files
from iptv2_diffusion.data.image_folder import class_folders
from iptv2_diffusion.data.labelled_pictures import FolderPictures, LabelledPictures
from iptv2_diffusion.data.latent_format import (
    DTYPES,
    LatentHeader,
    begin,
    content_hash,
    continued,
    finish,
    pack_names,
    unfinished_shards,
    write_shard,
)
from iptv2_diffusion.data.tar_pictures import TarPictures, tar_files
from iptv2_diffusion.diffusion.latents import LatentCodec, center_crop
from iptv2_diffusion.diffusion.vae_hash import encoder_sha256
from iptv2_diffusion.engine.stream import ErrorsAsValues, checked, collate, worker_context

CROP = "adm-center"  # `center_crop`


def encode_latents(config: Any) -> None:
    """Writes what the `LatentsConfig` asks for; what is there already is kept."""
    allow_tf32(False)  # latents are kept in more digits
    with processes(None) as state:
        pictures = open_pictures(config)
        codec = LatentCodec.from_pretrained(vae_source(config.vae), device=state.device or "cpu")
        header = make_header(config, pictures, codec)
        if state.is_main_process:
            begin(config.output, header)
        state.wait_for_everyone()
        header = continued(config.output, header)
        shards = unfinished_shards(config.output, header)
        state.wait_for_everyone()  # nobody writes before everybody has looked
        encode_shards(config, pictures, codec, header, shards[state.process_index :: state.num_processes])
        state.wait_for_everyone()
        if state.is_main_process:
            finish(config.output, header)
    held_out = "" if header.hold_out is None else f", one of {header.hold_out} held out"
    say(f"{header.count} pictures of {len(header.classes)} classes{held_out} are in {config.output}")


def open_pictures(config: Any) -> LabelledPictures:
    root, names = config.data_path, None
    if config.classes is not None:
        names = config.classes.read_text("utf-8").splitlines()
    layout = config.layout or find_layout(root)
    if layout == "tars":
        return TarPictures(root, names)
    if layout == "datasets":
        return HFPictures(root, config.split, names)
    if names is not None:
        raise ValueError(f"--classes names the classes of tar files and Hugging Face data sets, {root} is neither")
    return FolderPictures(root)


def find_layout(root: Path) -> str:
    """ValueError where several fit: the pictures of the others would be left out without a word."""
    found = {"tars": [path.name for path in tar_files(root)], "datasets": hf_files(root)}
    if any(found.values()):
        found["folders"] = [path.name for path in islice(class_folders(root), 1)]
    fitting = {layout: names[0] for layout, names in found.items() if names}
    if len(fitting) > 1:
        described = ", ".join(f"{layout} ({name})" for layout, name in fitting.items())
        raise ValueError(f"{root} fits several layouts, {described}: pass --layout")
    return next(iter(fitting), "folders")


def make_header(config: Any, pictures: LabelledPictures, codec: LatentCodec) -> LatentHeader:
    if config.image_size % codec.factor:
        raise ValueError(f"expected --image-size in multiples of {codec.factor}, got {config.image_size}")
    if config.hold_out is not None and config.hold_out > len(pictures):
        raise ValueError(f"expected --hold-out of at most the {len(pictures)} pictures, got {config.hold_out}")
    side = config.image_size // codec.factor
    return LatentHeader(
        vae=recorded_vae(config.vae),
        vae_sha256=encoder_sha256(codec.vae),
        scale=codec.scale,
        shift=codec.shift,
        crop=CROP,
        image_size=config.image_size,
        shape=(codec.channels, side, side),
        flip=config.flip,
        dtype=config.dtype,
        classes=pictures.classes,
        count=len(pictures),
        content=content_hash((pictures.label(i), pictures.name(i)) for i in range(len(pictures))),
        shard_size=config.shard_size,
        hold_out=config.hold_out,
    )


def encode_shards(
    config: Any, pictures: LabelledPictures, codec: LatentCodec, header: LatentHeader, shards: Sequence[int]
) -> None:
    total = sum(len(header.rows(shard)) for shard in shards)
    crops = iter(_loader(config, pictures, header, shards))
    quiet = not PartialState().is_main_process
    with tqdm(total=total, unit="picture", desc="this process encodes", disable=quiet) as bar:
        for shard in shards:
            rows = header.rows(shard)
            parts = []
            for _ in _batches(rows, config.batch_size):
                parts.append(_moments(codec, checked(next(crops)), header))
                bar.update(len(parts[-1]))
            names = [pictures.name(index) for index in rows]
            labels = torch.tensor([pictures.label(index) for index in rows])
            tensors = {"moments": _finite(torch.cat(parts), names), "labels": labels, "names": pack_names(names)}
            write_shard(config.output, header, shard, tensors)


def _moments(codec: LatentCodec, pixels: Tensor, header: LatentHeader) -> Tensor:
    """uint8 (B, 3, H, W) -> (B, views, 2, C, h, w)"""
    images = pixels.to(codec.vae.device).float() / 127.5 - 1
    views = [images, images.flip(-1)][: header.views]
    moments = torch.stack([torch.stack(codec.moments(view), 1) for view in views], 1)
    return moments.to("cpu", DTYPES[header.dtype])


def _finite(moments: Tensor, names: Sequence[str]) -> Tensor:
    broken = (~moments.isfinite()).flatten(1).any(1)
    if broken.any():
        raise ValueError(f"the moments of {names[int(broken.int().argmax())]} are not finite as {moments.dtype}")
    return moments


def _crop(pictures: LabelledPictures, size: int, index: int) -> Tensor:
    """(3, size, size) uint8."""
    return torch.from_numpy(np.array(center_crop(pictures.picture(index), size))).permute(2, 0, 1)


def _loader(config: Any, pictures: LabelledPictures, header: LatentHeader, shards: Sequence[int]) -> DataLoader:
    """The batches of these shards, in order; none reaches into the next shard."""
    batches = (batch for shard in shards for batch in _batches(header.rows(shard), config.batch_size))
    return DataLoader(
        ErrorsAsValues(partial(_crop, pictures, header.image_size)),
        batch_sampler=cast(Sampler[list[int]], batches),
        num_workers=config.workers,
        multiprocessing_context=worker_context(config.workers),
        collate_fn=collate,
        worker_init_fn=_leave_interrupts_to_the_parent,
    )


def _batches(rows: range, size: int) -> Iterator[list[int]]:
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
