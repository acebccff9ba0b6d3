"""Starting from another model's weights: another task, number of channels or size."""

from torch import nn


def initialise(model: nn.Module, source: nn.Module) -> list[str]:
    """Copies every tensor that has the same name and shape; returns the names of the others in `model`.

    ValueError where nothing fits. Both models have to be in the same form, fused or not.
    """
    given = source.state_dict()
    own = model.state_dict()
    fitting = {name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape}
    if not fitting:
        raise ValueError(f"none of the {len(own)} tensors of the model fits one of the {len(given)} given")
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]
