"""`iptv2-data degrade`: clean photographs -> pairs of degraded and clean pictures, to score restorers on."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iptv2_diffusion.cli.common import say
from iptv2_diffusion.config import arg
from iptv2_diffusion.files import check_free, file_sha256

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
    targets = _targets([names[index] for index in chosen])
    _begin(config, names, {names[index]: file_sha256(pictures.files[index])[:16] for index in chosen})
    source = CleanPatches(pictures, degrade)
    for index, target in zip(tqdm(chosen, unit=" pictures"), targets, strict=True):
        files = {kind: config.output / kind / target for kind in (INPUT, TARGET)}
        if all(file.exists() for file in files.values()):  # of a run that was stopped
            continue
        try:
            pair = source.patch(index, None, derived_generator(config.seed, PAIRS, index), centred=True)
        except ValueError as error:
            raise ValueError(f"{pictures.files[index]}: {error}") from error
        for file, image in zip(files.values(), (pair["degraded"], pair["clean"]), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_photo(file, Photo(to_uint8(image)), overwrite=True)
    say(f"{len(chosen)} pairs, {degrade}, are in {config.output}")


def _targets(names: Sequence[str]) -> list[str]:
    """File names. ValueError where two would be one."""
    targets = [f"{name.replace('/', '-')}.png" for name in names]
    if twice := [target for target, count in Counter(targets).items() if count > 1]:
        raise ValueError(
            f"{len(twice)} pairs would have the name of another, the first {twice[0]}: rename a photograph"
        )
    return targets


def _begin(config: DegradeConfig, names: Sequence[str], content: Mapping[str, str]) -> None:
    """Records what the pairs are; FileExistsError where there are others, or anything else."""
    from iptv2_diffusion.cli.records import write_record

    settings = json.loads(json.dumps(asdict(config) | {"pictures": list(names), "content": content}, default=str))
    del settings["output"], settings["data_path"]
    record = config.output / RECORD
    if record.is_file():
        if json.loads(record.read_text("utf-8")) != settings:
            raise FileExistsError(f"{config.output} holds pairs of other pictures or settings, see {record}")
        return
    check_free(config.output, "for pairs")
    write_record(record, settings)
