"""`iptv2-data degrade`: clean photographs -> pairs of degraded and clean pictures, to score restorers on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iptv2_diffusion.cli.common import say
from iptv2_diffusion.config import arg
from iptv2_diffusion.files import check_free

RECORD = "degrade.json"
PAIRS = 3  # number of the random stream, beside those of training


@dataclass(frozen=True, kw_only=True)
class DegradeConfig:
    data_path: tuple[Path, ...] = arg(help="folders of clean photographs")
    degrade: str = arg(help="as of train.py, such as motion:9-31,awgn:0-5 or kernels:FILE.mat,awgn:1-2")
    output: Path = arg(help="folder for `input` and `target`; what is there is kept")
    hold_out: int | None = arg(None, "only those that train.py --hold-out N leaves out of these folders; none: all")
    seed: int = arg(0, "of the degradations; each picture has a stream of its own")

    def __post_init__(self) -> None:
        if self.hold_out is not None and self.hold_out < 1:
            raise ValueError(f"expected --hold-out of at least 1, got {self.hold_out}")


def write_pairs(config: DegradeConfig) -> None:
    """PNG of 8 bits; blurred pictures lose a margin, so that every pixel is what the photograph alone determines."""
    from tqdm import tqdm

    from iptv2_diffusion.cli.restoration_sources import INPUT, TARGET, clean_pictures, split_scenes
    from iptv2_diffusion.data.degradations import parse_degradations
    from iptv2_diffusion.data.image_io import Photo, write_photo
    from iptv2_diffusion.data.patches import CleanPatches
    from iptv2_diffusion.restoration.task import to_uint8
    from iptv2_diffusion.rng import derived_generator

    degrade = parse_degradations(config.degrade)
    pictures, names, origins = clean_pictures(config.data_path)
    chosen = range(len(names)) if config.hold_out is None else split_scenes(origins, config.hold_out)[1]
    _begin(config, names)
    source = CleanPatches(pictures, degrade)
    for index in tqdm(chosen, unit=" pictures"):  # what is missing of a run that was stopped
        files = {kind: config.output / kind / f"{names[index].replace('/', '-')}.png" for kind in (INPUT, TARGET)}
        if all(file.exists() for file in files.values()):
            continue
        pair = source.patch(index, None, derived_generator(config.seed, PAIRS, index), centred=True)
        for file, image in zip(files.values(), (pair["degraded"], pair["clean"]), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_photo(file, Photo(to_uint8(image)), overwrite=True)
    say(f"{len(chosen)} pairs, {degrade}, are in {config.output}")


def _begin(config: DegradeConfig, names: Sequence[str]) -> None:
    """Records what the pairs are; FileExistsError where there are others, or anything else."""
    from iptv2_diffusion.cli.records import write_record

    settings = json.loads(json.dumps(asdict(config) | {"pictures": list(names)}, default=str))
    del settings["output"], settings["data_path"]
    record = config.output / RECORD
    if record.is_file():
        if json.loads(record.read_text("utf-8")) != settings:
            raise FileExistsError(f"{config.output} holds pairs of other pictures or settings, see {record}")
        return
    check_free(config.output, "for pairs")
    write_record(record, settings)
