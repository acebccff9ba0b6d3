"""Score generated images against a reference: FID, sFID, Inception Score, precision, recall, by the ADM suite's definitions.

--samples is a folder of pictures or an .npz with arr_0; --reference one of these, or ADM's .npz (mu, sigma, mu_s,
sigma_s, arr_0). `accelerate launch -m eval.fid ...` shares the images among processes. Every definition is described in
eval/README.md.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iptv2_diffusion.cli.common import allow_tf32, run, say
from iptv2_diffusion.cli.generation_record import check_drawn, describe_samples, read_settings, table_6
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.diffusion.protocols import PROTOCOLS, find_protocol
from iptv2_diffusion.files import check_place

if TYPE_CHECKING:
    from iptv2_diffusion.cli.image_sets import ImageSet
    from iptv2_diffusion.cli.references import Reference, ReferenceFiles
    from iptv2_diffusion.metrics.extractors import Extractor

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "iptv2_diffusion" / "statistics"


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    reference: Path = arg(help="folder of pictures, .npz with arr_0, or ADM's .npz of statistics")
    samples: Path | None = arg(None, "folder of pictures, or .npz with arr_0; none: with --write-stats only")
    protocol: str | None = arg(None, f"refuse samples that were not drawn by it: {', '.join(PROTOCOLS)}")
    paper_table6: bool = arg(False, "print the result beside Table 6's rows")
    kid: bool = arg(False, "also the kernel distance, of 1000 images or more")
    features: str | None = arg(
        None, "in place of Inception's: vae-latents, MODULE:FUNCTION, or torch-fidelity's clip-vit-b-32; no FID then"
    )
    inception_weights: Path | None = arg(None, "file; none: torch-fidelity's, from torch.hub's cache or fetched")
    size: int | None = arg(None, "pixels a side to which a reference's pictures are cropped as ADM does")
    write_stats: Path | None = arg(None, "new .npz for the reference's statistics, as ADM's evaluator reads them")
    output: Path | None = arg(None, "new JSON file for the record; none: beside the samples")
    cache: Path | None = arg(CACHE, "folder of references' statistics by content; none: nothing is kept")
    batch_size: int = arg(64, "images at once in each process")
    device: str | None = arg(None, "none: a GPU where there is one")

    def __post_init__(self) -> None:
        for name in ("batch_size", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
        for path in (self.output, self.write_stats):
            if path is not None and path.exists():
                raise FileExistsError(f"{path} exists already")
        if self.protocol is not None:
            find_protocol(self.protocol)
        self._check_combination()

    def _check_combination(self) -> None:
        if self.samples is None and self.write_stats is None:
            raise ValueError("expected --samples or --write-stats")
        if self.samples is None and (self.output or self.protocol or self.paper_table6 or self.kid):
            raise ValueError("--output, --protocol, --paper-table6 and --kid need --samples")
        if self.features is not None and (self.paper_table6 or self.inception_weights):
            raise ValueError("--paper-table6 and --inception-weights are for Inception, not for other --features")
        if self.write_stats is not None and self.write_stats.suffix != ".npz":
            raise ValueError(f"expected a name that ends with .npz as --write-stats, got {self.write_stats}")


def main() -> None:
    run(_evaluate)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, GenerationConfig)
    return parser


def _evaluate() -> None:
    command(make_parser().parse_args())


def command(flags: argparse.Namespace) -> None:
    config = from_flags(GenerationConfig, flags)

    from iptv2_diffusion.cli.processes import processes

    allow_tf32(False)  # figures are compared
    with processes(config.device):
        _score(config)


def _score(config: GenerationConfig) -> None:
    from iptv2_diffusion.cli.image_sets import open_images
    from iptv2_diffusion.cli.references import lacking, measure_reference, open_reference

    settings, images = None, None
    if config.samples is not None:
        settings, images = read_settings(config.samples), open_images(config.samples)
        check_drawn(settings, images.count, config.protocol)
        _check_place(config)
    files = open_reference(config.reference, config.size)
    _check_counts(config, images, files)
    _check_sizes(config, images, files.images)
    extractor = _extractor(config)
    reference = measure_reference(files, extractor, batch_size=config.batch_size, cache=_cache(config))
    _write_stats(config, reference, files, extractor)
    if images is not None:
        for line in lacking(reference, extractor):
            say(line)
        _report(config, images, settings, reference, extractor)


def _check_place(config: GenerationConfig) -> None:
    """OSError where the record could not be written."""
    if config.output is not None:
        check_place(config.output)
    elif not os.access(_folder(config), os.W_OK):
        raise PermissionError(f"the record cannot be written to {_folder(config)}: pass --output")


def _check_counts(config: GenerationConfig, images: "ImageSet | None", files: "ReferenceFiles") -> None:
    """ValueError for what could only fail after all images were read."""
    from iptv2_diffusion.metrics.kernel_distance import SUBSET
    from iptv2_diffusion.metrics.precision_recall import NEIGHBOURS

    least = SUBSET if config.kid else NEIGHBOURS + 1
    for found in (images, files.images):
        if found is not None and found.count < least:
            raise ValueError(f"expected at least {least} images in {found.path}, got {found.count}")
    if config.kid and files.images is None:
        raise ValueError(f"--kid needs images, {files.path} has statistics only")
    if config.write_stats is not None and files.has_statistics:
        raise ValueError(f"--write-stats needs a reference of images, {files.path} has statistics already")


def _check_sizes(config: GenerationConfig, images: "ImageSet | None", reference: "ImageSet | None") -> None:
    """Images of different sizes can be compared, but not with the paper's figures."""
    if images is None or reference is None or images.side_lengths == reference.side_lengths:
        return
    sizes = [f"{width}x{height}" for height, width in (images.side_lengths, reference.side_lengths)]
    found = f"the samples have {sizes[0]} pixels, the reference's images {sizes[1]}"
    if config.protocol is not None or config.paper_table6:
        raise ValueError(f"expected images of one size with --protocol or --paper-table6: {found}")
    say(f"Sizes differ: {found}.")


def _extractor(config: GenerationConfig) -> "Extractor":
    from accelerate import PartialState

    from iptv2_diffusion.cli.processes import own_device
    from iptv2_diffusion.metrics import inception

    device = own_device(config.device)
    if config.features is not None:
        from iptv2_diffusion.cli.features import make_extractor

        with PartialState().local_main_process_first():  # weights may have to be fetched
            return make_extractor(config.features, device)
    with PartialState().local_main_process_first():
        weights = inception.find_weights(config.inception_weights)
    extractor = inception.inception_extractor(weights, device)
    if config.paper_table6 and not inception.is_published(extractor):
        raise ValueError(f"--paper-table6 needs the published Inception weights, {weights} holds others")
    return extractor


def _write_stats(
    config: GenerationConfig, reference: "Reference", files: "ReferenceFiles", extractor: "Extractor"
) -> None:
    from accelerate import PartialState

    from iptv2_diffusion.cli.references import write_statistics

    if config.write_stats is not None and PartialState().is_main_process:
        write_statistics(reference, files, extractor, config.write_stats)
        say(f"{config.write_stats} holds the statistics of {config.reference}")


def _report(
    config: GenerationConfig,
    images: "ImageSet",
    settings: Mapping[str, Any] | None,
    reference: "Reference",
    extractor: "Extractor",
) -> None:
    """All processes measure; the first one compares, prints and writes."""
    from accelerate import PartialState

    from iptv2_diffusion.cli.generation_figures import figures, make_record, record_name
    from iptv2_diffusion.cli.image_statistics import measure, pixels_sha256
    from iptv2_diffusion.cli.records import free_name, write_record

    sha256 = pixels_sha256(images, config.batch_size)
    samples = measure(images, extractor, sha256=sha256, keep=None, batch_size=config.batch_size, cache=None)
    if not PartialState().is_main_process:
        return
    found = figures(samples, reference, kernel=config.kid, device=extractor.device)
    description = describe_samples(images, sha256, settings)
    record: dict[str, Any] = {"protocol": config.protocol}
    record |= make_record(found, description, reference.description, extractor)
    name = record_name(extractor, config.protocol, images.count)
    output = config.output or free_name(_folder(config) / name)
    width = max(map(len, record["figures"]))
    say("\n".join(f"{name.ljust(width)}  {value:.4f}" for name, value in record["figures"].items()))
    if config.paper_table6:
        say(table_6(found, images.count, settings, config.protocol))
    write_record(output, record)
    say(f"The record is {output}")


def _folder(config: GenerationConfig) -> Path:
    """Of the samples."""
    assert config.samples is not None
    return config.samples if config.samples.is_dir() else config.samples.parent


def _cache(config: GenerationConfig) -> Path | None:
    return None if config.cache is None else config.cache.expanduser()


if __name__ == "__main__":
    main()
