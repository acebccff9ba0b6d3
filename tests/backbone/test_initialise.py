"""Starting from another model's weights."""

import pytest
import torch
from torch import nn

from iptv2_diffusion.backbone.initialise import describe, initialise


def network(inputs: int, width: int, **extra: nn.Module) -> nn.Module:
    return nn.ModuleDict({"first": nn.Linear(inputs, width), "second": nn.Linear(width, 2), **extra})


def test_what_fits_is_copied_and_the_rest_is_named() -> None:
    source, model = network(3, 8), network(4, 8, third=nn.Linear(1, 1, bias=False))
    model.register_buffer("count", torch.ones(()))
    source.register_buffer("count", torch.zeros(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    afresh = initialise(model, source)
    assert afresh == {"count": "a number, there 2", "first.weight": "8x4, there 8x3", "third.weight": "not there"}
    for name, value in model.state_dict().items():
        assert value.equal(before[name] if name in afresh else source.state_dict()[name])
    assert describe(afresh, 6) == (
        "3 of 6 tensors; 3 start afresh, 2 of other shapes: count (a number, there 2), first.weight (8x4, there 8x3); "
        "1 not there: third.weight"
    )
    assert describe({}, 6) == "all 6 tensors"


def test_all_are_named_in_one_line() -> None:
    afresh = {f"levels.{index}.weight": "8x4, there 8x3" for index in range(500)}
    afresh |= {f"deeper.{index}.weight": "not there" for index in range(700)}
    line = describe(afresh, 1500)
    assert line.startswith(
        "300 of 1500 tensors; 1200 start afresh, 500 of other shapes: levels.0.weight (8x4, there 8x3), "
    )
    assert all(name in line for name in afresh)
    assert "; 700 not there: deeper.0.weight, deeper.1.weight, deeper.2.weight, " in line
    assert "\n" not in line


def test_copies_are_the_model_s_own() -> None:
    source, model = network(3, 8), network(3, 8)
    assert initialise(model, source) == {}
    nn.init.zeros_(model.get_parameter("first.weight"))
    assert source.get_parameter("first.weight").abs().max() > 0


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the 1 tensors of the model fits one of the 2 given"):
        initialise(nn.Linear(3, 5, bias=False), nn.Linear(3, 4))


def test_another_class_is_an_error_though_tensors_fit() -> None:
    with pytest.raises(ValueError, match=r"^expected weights of class Linear, got Bilinear$"):
        initialise(nn.Linear(3, 5), nn.Bilinear(3, 1, 5))
