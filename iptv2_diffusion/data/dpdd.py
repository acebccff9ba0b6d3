"""The dual-pixel defocus deblurring set (DPDD): scenes whose blurred and sharp files have different names.

The camera counts: 1P0A0917 is blurred, 1P0A0916 is the same scene sharp. The set's authors publish lists of the names
that belong together (`file_names/*.npy`); without them the order of the numbers decides, as in their code, if those of
every scene are neighbours.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iptv2_diffusion.data.pairs import Pair, match

SCENES = {"indoor": 37, "outdoor": 39}  # of the 76 of the test set
APART = 2  # the sharp picture was taken one or two shots from the blurred one


def match_views(views: Sequence[dict[str, Path]], clean: dict[str, Path], name_lists: Path) -> list[Pair]:
    """Pairs by name where names agree, else by the lists `<name_lists>_{src,trg}.npy`, else by the camera's numbers.

    The views of one scene (left and right) always have one name. ValueError where a picture lacks its counterpart.
    """
    if any(views[0].keys() != view.keys() for view in views):
        raise ValueError(f"expected the same names in every view, {name_lists.parent.parent} has different ones")
    if views[0].keys() == clean.keys():
        partner = {name: name for name in clean}
    elif name_lists.with_name(name_lists.name + "_src.npy").is_file():
        partner = _listed(name_lists)
    elif views[0].keys() & clean.keys():
        partner = {name: name for name in clean}  # and some are missing
    else:
        partner = _numbered(sorted(views[0]), sorted(clean), name_lists)
    renamed = {source: clean[target] for source, target in partner.items() if target in clean}
    return match(views, renamed, ["source"] * len(views), "target")


def read_labels(path: str | Path, count: int = sum(SCENES.values())) -> np.ndarray:
    """(N,) int64: positions in the sorted test list, from 0, of the indoor or the outdoor scenes.

    The file (.npy, or text with one number a line) counts from 1, as DPDNet's `indoor_labels.npy` does.
    """
    path = Path(path)
    try:
        labels = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, dtype=np.int64, ndmin=1)
    except ValueError as error:
        raise ValueError(f"expected numbers of scenes in {path}: {error}") from None
    labels = labels.astype(np.int64).ravel()
    if labels.size == 0 or labels.min() < 1 or labels.max() > count or np.unique(labels).size != labels.size:
        raise ValueError(f"expected different numbers from 1 to {count} in {path}")
    return labels - 1


def _numbered(sources: Sequence[str], targets: Sequence[str], name_lists: Path) -> dict[str, str]:
    """In order. Of two scenes next to each other one is missing on either side where the numbers are far apart."""
    if len(sources) != len(targets):
        raise ValueError(f"expected as many blurred as sharp pictures, got {len(sources)} and {len(targets)}")
    partner = dict(zip(sources, targets, strict=True))
    strangers = [f"{source} and {target}" for source, target in partner.items() if not _are_neighbours(source, target)]
    if strangers:
        raise ValueError(
            f"expected numbers at most {APART} apart in the names of a blurred picture and its sharp one, got "
            f"{strangers[0]} ({len(strangers)} of {len(partner)} in order): pictures are missing, "
            f"or {name_lists}_src.npy and _trg.npy have to say what belongs together"
        )
    return partner


def _are_neighbours(source: str, target: str) -> bool:
    (camera, shot), (other, clean) = (re.findall(r"^(.*?)(\d*)$", name)[0] for name in (source, target))
    return camera == other and bool(shot and clean) and abs(int(shot) - int(clean)) <= APART


def _listed(name_lists: Path) -> dict[str, str]:
    source, target = _names(name_lists, "src"), _names(name_lists, "trg")
    if len(source) != len(target):
        raise ValueError(f"expected lists of one length, {name_lists}_*.npy have {len(source)} and {len(target)} names")
    return dict(zip(source, target, strict=True))


def _names(name_lists: Path, side: str) -> list[str]:
    """File names without folder and extension."""
    path = name_lists.with_name(f"{name_lists.name}_{side}.npy")
    try:
        listed = np.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a list of names in {path}: {error}") from None
    return [Path(str(name)).stem for name in listed.ravel()]
