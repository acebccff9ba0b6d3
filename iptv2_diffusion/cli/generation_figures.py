"""Figures of merit of generated images against a reference, under names that say what they are: `FID@50k`."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from iptv2_diffusion.cli.image_statistics import Statistics
from iptv2_diffusion.cli.references import COMPARED, Reference
from iptv2_diffusion.cli.scoring import versions
from iptv2_diffusion.metrics.extractors import FEATURES, SPATIAL, Extractor
from iptv2_diffusion.metrics.frechet import frechet_distance
from iptv2_diffusion.metrics.inception import is_published
from iptv2_diffusion.metrics.inception_score import SPLIT
from iptv2_diffusion.metrics.kernel_distance import kernel_distance
from iptv2_diffusion.metrics.precision_recall import NEIGHBOURS, precision_recall

NEUTRAL = {  # the names of figures in any other feature space than the published Inception's
    "FID": "frechet_distance",
    "sFID": "spatial_frechet_distance",
    "IS": "inception_score",
    "KID": "kernel_distance",
}


def figures(
    samples: Statistics, reference: Reference, *, kernel: bool = False, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """By the names of Table 6, as far as network and reference allow."""
    found = {"FID": frechet_distance(samples.gaussians[FEATURES], reference.gaussians[FEATURES])}
    if samples.score is not None:
        found |= dict(zip(("IS", "IS_deviation"), samples.score, strict=True))
    if SPATIAL in samples.gaussians and SPATIAL in reference.gaussians:
        found["sFID"] = frechet_distance(samples.gaussians[SPATIAL], reference.gaussians[SPATIAL])
    if reference.features is not None:
        drawn, real = (torch.from_numpy(rows) for rows in (samples.features, reference.features))
        found |= dict(zip(("precision", "recall"), precision_recall(drawn.to(device), real.to(device)), strict=True))
        if kernel:
            found |= dict(zip(("KID", "KID_deviation"), kernel_distance(drawn, real), strict=True))
    return found


def make_record(
    found: Mapping[str, float], samples: Mapping[str, Any], reference: Mapping[str, Any], extractor: Extractor
) -> dict[str, Any]:
    """For JSON: the figures by their full names, what was compared (descriptions), and by what definitions."""
    return {
        "figures": {full_name(name, samples["images"], extractor): value for name, value in found.items()},
        "samples": dict(samples),
        "reference": dict(reference),
        "extractor": {"name": extractor.name, "weights_sha256": extractor.weights_sha256},
        "definitions": {"neighbours": NEIGHBOURS, "score_split": SPLIT, "most_compared_of_reference": COMPARED},
        "packages": versions() | {"torch_fidelity": version("torch-fidelity")},
    }


def full_name(name: str, count: int, extractor: Extractor) -> str:
    """With the number of samples, and the feature space where it is not the published Inception's."""
    if is_published(extractor):
        return f"{name}@{_shown(count)}"
    figure, *rest = name.split("_")
    return f"{'_'.join([NEUTRAL.get(figure, figure), *rest])}[{extractor.name}]@{_shown(count)}"


def record_name(extractor: Extractor, protocol: str | None, count: int) -> str:
    """Of the file: scores-inception-v3-adm-dit-paper-cfg1.5-50k.json."""
    return "-".join(["scores", extractor.name, *([] if protocol is None else [protocol]), _shown(count)]) + ".json"


def _shown(count: int) -> str:
    return f"{count // 1000}k" if count >= 10_000 and count % 1000 == 0 else str(count)
