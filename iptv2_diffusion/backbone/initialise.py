"""Starting from another model's weights: another task, other classes, another size."""

from collections.abc import Mapping

from torch import Tensor, nn

ABSENT = "not there"


def initialise(model: nn.Module, source: nn.Module) -> dict[str, str]:
    """Copies every tensor that has the same name and shape; returns why the others in `model` keep their values.

    Name -> reason: "8x4x3x3, there 4x4x3x3" or "not there". ValueError for a model of another class, and where nothing
    fits. Both models have to be in the same form, fused or not.
    """
    if type(source) is not type(model):
        raise ValueError(f"expected weights of class {type(model).__name__}, got {type(source).__name__}")
    own, given = model.state_dict(), source.state_dict()
    reasons = {name: _misfit(value, given.get(name)) for name, value in own.items()}
    fitting = {name: given[name] for name, reason in reasons.items() if reason is None}
    if not fitting:
        raise ValueError(f"none of the {len(own)} tensors of the model fits one of the {len(given)} given")
    model.load_state_dict(fitting, strict=False)
    return {name: reason for name, reason in reasons.items() if reason is not None}


def describe(afresh: Mapping[str, str], total: int) -> str:
    """One line on what `initialise` returned for a model of `total` tensors: numbers and names."""
    if not afresh:
        return f"all {total} tensors"
    absent = [name for name, reason in afresh.items() if reason == ABSENT]
    others = [f"{name} ({reason})" for name, reason in afresh.items() if reason != ABSENT]
    kinds = [f"{len(others)} of other shapes: {', '.join(others)}"] if others else []
    kinds += [f"{len(absent)} {ABSENT}: {', '.join(absent)}"] if absent else []
    return f"{total - len(afresh)} of {total} tensors; {len(afresh)} start afresh, {'; '.join(kinds)}"


def _misfit(own: Tensor, given: Tensor | None) -> str | None:
    if given is None:
        return ABSENT
    return None if own.shape == given.shape else f"{_size(own)}, there {_size(given)}"


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
