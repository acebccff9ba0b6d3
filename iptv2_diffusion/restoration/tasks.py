"""The restoration tasks of Section 4 and what each asks of a model. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskSpec:
    """`norm` is Restormer's choice for the task, which the paper follows without a word on it."""

    channels: tuple[int, int] = (3, 3)  # of the degraded and of the restored image
    norm: str = "centred"
    noise: bool = False  # trained on clean photographs to which noise is added
    train_set: str | None = None  # of `data.restoration_sets`


TASKS: dict[str, TaskSpec] = {
    "denoise-color": TaskSpec(norm="bias_free", noise=True),
    "denoise-gray": TaskSpec((1, 1), norm="bias_free", noise=True),
    "denoise-real": TaskSpec(norm="bias_free", train_set="sidd-train"),
    "motion-deblur": TaskSpec(train_set="gopro-train"),
    "defocus-deblur": TaskSpec(train_set="dpdd-train"),
    "defocus-deblur-dual": TaskSpec((6, 3), train_set="dpdd-dual-train"),
    "derain": TaskSpec(train_set="rain13k"),
    "paired": TaskSpec(),
}


GROUPS = {"denoise": ("denoise-color", "denoise-gray", "denoise-real")}  # what may be asked for by one name


def members(wanted: str) -> tuple[str, ...]:
    """The tasks of a group, or the one that is named."""
    return GROUPS.get(wanted, (wanted,))


def serves(trained: str | None, wanted: str) -> bool:
    """Whether weights trained for one task may be asked for another or for a group; None and "paired" can be anything."""
    return trained in (None, "paired", *members(wanted))
