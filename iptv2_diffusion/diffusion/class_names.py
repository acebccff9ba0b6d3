"""Names of classes: lookup by any of a class's names, and ImageNet's in ImageFolder order.

A label lists the names of one class, separated by commas: "tench, Tinca tinca".
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches


def imagenet_id2label() -> dict[int, str]:
    """WordNet's names of the 1000 classes, numbered as ImageFolder numbers the sorted synset folders."""
    from timm.data.imagenet_info import ImageNetInfo  # timm takes seconds to import

    info = ImageNetInfo("imagenet-1k")
    return {index: info.index_to_description(index) for index in range(info.num_classes())}


def class_names(folders: Sequence[str]) -> list[str]:
    """The names of ImageFolder's classes: folders that are all ImageNet synsets get WordNet's names."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    descriptions = {info.index_to_label_name(i): info.index_to_description(i) for i in range(info.num_classes())}
    return [descriptions[name] for name in folders] if set(folders) <= set(descriptions) else list(folders)


def names_of(id2label: Mapping[int, str]) -> dict[str, list[int]]:
    """Lower-case name -> the ids it may mean.

    A name that is the whole label of some class means that class alone: without this rule "missile" could never be
    asked for, since "projectile, missile" lists it, too.
    """
    whole: dict[str, list[int]] = {}
    parts: dict[str, list[int]] = {}
    for index, label in id2label.items():
        whole.setdefault(_normal(label), []).append(index)
        for part in {_normal(part) for part in label.split(",")}:
            parts.setdefault(part, []).append(index)
    return parts | whole


def find_class(name: str, names: Mapping[str, list[int]]) -> int:
    """The id `name` stands for; case and outer spaces do not matter."""
    if not names:
        raise ValueError(f"cannot look up {name!r}: this pipeline has no class names, pass ids instead")
    ids = names.get(_normal(name), [])
    if not ids:
        close = get_close_matches(_normal(name), names, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see the `labels` of the pipeline"
        raise ValueError(f"unknown class name {name!r}; {hint}")
    if len(ids) > 1:
        raise ValueError(f"class name {name!r} is ambiguous: it names classes {', '.join(map(str, ids))}; pass an id")
    return ids[0]


def _normal(name: str) -> str:
    return " ".join(name.split()).casefold()
