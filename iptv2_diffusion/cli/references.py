"""What samples are compared with: a folder of pictures, an .npz of images, or ADM's .npz of statistics, read and written."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from iptv2_diffusion.cli.image_sets import IMAGES, ImageSet, members, open_images, write_images
from iptv2_diffusion.cli.image_statistics import Statistics, measure, pixels_sha256, spaced
from iptv2_diffusion.files import written_whole
from iptv2_diffusion.metrics.extractors import FEATURES, SPATIAL, Extractor
from iptv2_diffusion.metrics.frechet import Gaussian
from iptv2_diffusion.metrics.inception import NAME as INCEPTION

ADM_NAMES = {FEATURES: ("mu", "sigma"), SPATIAL: ("mu_s", "sigma_s")}
EXTRACTOR = "extractor"  # an entry of ours, which ADM's files do not have: theirs are Inception's
ASSUMED = "assumed"  # features of statistics that do not name them
COMPARED = 10_000  # images of a reference that precision, recall and kernel distance see, as in ADM's files


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference:
    gaussians: Mapping[str, Gaussian]
    features: np.ndarray | None  # (K, d) float32; None where there are no images
    description: Mapping[str, Any]  # JSON


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceFiles:
    """A reference before anything is measured of it."""

    path: Path
    images: ImageSet | None
    has_statistics: bool


def open_reference(path: Path, side: int | None = None) -> ReferenceFiles:
    """FileNotFoundError or ValueError where there is neither an image nor a mean and a covariance."""
    names = members(path) if path.is_file() else set()
    has_statistics = {"mu", "sigma"} <= names
    images = None if has_statistics and IMAGES not in names else open_images(path, side)
    return ReferenceFiles(path=path, images=images, has_statistics=has_statistics)


def measure_reference(files: ReferenceFiles, extractor: Extractor, *, batch_size: int, cache: Path | None) -> Reference:
    """Statistics of the file if it has them, else of its images."""
    stored, signed = _read_statistics(files.path, extractor) if files.has_statistics else (None, True)
    features = extractor.identity if signed else ASSUMED
    description: dict[str, Any] = {"path": str(files.path), "images": None, "pixels_sha256": None, "features": features}
    measured: Statistics | None = None
    if files.images is not None:
        sha256 = pixels_sha256(files.images, batch_size)
        description |= {"images": files.images.count, "pixels_sha256": sha256}
        description |= {"height_width": list(files.images.side_lengths)}
        measured = measure(files.images, extractor, sha256=sha256, keep=COMPARED, batch_size=batch_size, cache=cache)
    gaussians = stored if stored is not None else {} if measured is None else measured.gaussians
    return Reference(
        gaussians=gaussians,
        features=None if measured is None else measured.features,
        description={
            **description,
            "statistics": "stored" if files.has_statistics else "of its images",
            "statistics_sha256": _sha256(gaussians),
            "compared_images": 0 if measured is None else len(measured.features),
        },
    )


def lacking(reference: Reference, extractor: Extractor) -> list[str]:
    """In lines, what the reference leaves out or leaves open."""
    path, lines = reference.description["path"], []
    if reference.description["features"] == ASSUMED:
        lines.append(f"{path} does not say of which network its statistics are: taken for those of {extractor.name}.")
    reasons = []
    if SPATIAL in extractor.dimensions and SPATIAL not in reference.gaussians:
        reasons.append(f"no sFID ({' and '.join(ADM_NAMES[SPATIAL])} are missing)")
    if reference.features is None:
        reasons.append(f"no precision and recall (there are no images, {IMAGES})")
    return [*lines, f"With {path} {', '.join(reasons)}."] if reasons else lines


def write_statistics(reference: Reference, files: ReferenceFiles, extractor: Extractor, output: Path) -> None:
    """A file such as ADM's evaluator reads: mu, sigma, mu_s, sigma_s and at most 10,000 images, evenly spread, as arr_0."""
    assert files.images is not None
    arrays = {EXTRACTOR: np.array(extractor.identity)}
    for kind, fit in reference.gaussians.items():
        arrays |= dict(zip(ADM_NAMES[kind], (fit.mean, fit.covariance), strict=True))
    with written_whole(output) as unfinished, ZipFile(unfinished, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)
        write_images(archive, files.images, spaced(files.images.count, COMPARED))


def _read_statistics(path: Path, extractor: Extractor) -> tuple[dict[str, Gaussian], bool]:
    """Of any floating-point types, and whether they say of which features; ValueError where they are of others."""
    with np.load(path) as arrays:
        made_by = str(arrays[EXTRACTOR]) if EXTRACTOR in arrays else None
        if made_by != extractor.identity and not (made_by is None and extractor.name == INCEPTION):
            raise ValueError(f"{path} has statistics of {made_by or 'Inception'}, expected {extractor.identity}")
        found = {
            kind: Gaussian(*(arrays[name].astype(np.float64) for name in names))
            for kind, names in ADM_NAMES.items()
            if set(names) <= set(arrays.files)
        }
    for kind, fit in found.items():
        size = extractor.dimensions[kind]
        if fit.mean.shape != (size,) or fit.covariance.shape != (size, size):
            raise ValueError(f"expected {size} {kind} in {path}, got {fit.mean.shape} and {fit.covariance.shape}")
    return found, made_by is not None


def _sha256(gaussians: Mapping[str, Gaussian]) -> str:
    digest = hashlib.sha256()
    for kind, fit in sorted(gaussians.items()):
        digest.update(kind.encode() + fit.mean.tobytes() + fit.covariance.tobytes())
    return digest.hexdigest()
