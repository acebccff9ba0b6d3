"""Grid attention inside overlapping macro-tiles."""

from functools import partial
from itertools import product

import pytest
import tiny_restorer
import torch

from iptv2_diffusion.layers.attention import GGSA
from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.restoration.local import averaged, local_attention, spans

make = partial(tiny_restorer.make, layers=(2, 2, 2), heads=(1, 2, 4), refinement=2)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "side", "starts"),
    [(20, 8, [0, 6, 12]), (16, 8, [0, 8]), (17, 8, [0, 5, 9]), (9, 8, [0, 1]), (8, 8, [0]), (5, 8, [0])],
)
def test_spans(size: int, side: int, starts: list[int]) -> None:
    """The last start of 17 by steps of 5 would be 10: it ends at the border instead."""
    assert [span.start for span in spans(size, side)] == starts
    assert all(span.stop - span.start == min(size, side) for span in spans(size, side))


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((20, 16), [0, 6, 12], [0, 8]), ((9, 5), [0, 1], [0]), ((7, 17), [0], [0, 5, 9])],
    ids=str,
)
def test_equals_a_loop_over_macro_tiles(size: tuple[int, int], rows: list[int], columns: list[int]) -> None:
    """Each pixel is the mean of what GGSA gives in every macro-tile that holds it, one image at a time."""
    module = GGSA(4, 2, 4, init=INITS["torch"]).double()
    for parameter in module.parameters():
        parameter.copy_(random(*parameter.shape) - 0.5)
    x = random(2, 4, *size)
    values: list[list[list[torch.Tensor]]] = [[[] for _ in range(size[1])] for _ in range(size[0])]
    for top, left in product(rows, columns):
        part = torch.cat([module(image[None, :, top : top + 8, left : left + 8]) for image in x])
        for i, j in product(range(part.shape[2]), range(part.shape[3])):
            values[top + i][left + j].append(part[:, :, i, j])
    means = [[torch.stack(cell).mean(0) for cell in row] for row in values]
    expected = torch.stack([torch.stack(row, -1) for row in means], -2)
    torch.testing.assert_close(averaged(module, x, 8), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(expected, module(x), rtol=1e-3)


@torch.no_grad()
def test_a_base_as_large_as_the_image_is_global_bit_for_bit() -> None:
    model, image = make(), random(2, 3, 45, 31).float()
    expected = model(image)
    with local_attention(model, 48):
        assert torch.equal(model(image), expected)
    with local_attention(model, 32):
        assert (model(image) - expected).abs().max() > 1e-4
    with local_attention(model, None):
        assert torch.equal(model(image), expected)


@torch.no_grad()
def test_macro_tiles_of_unshuffled_networks_are_as_many_pixels_of_the_image() -> None:
    model, image = make(unshuffle=2), random(2, 3, 90, 62).float()
    expected = model(image)
    with local_attention(model, 96):
        assert torch.equal(model(image), expected)
    with local_attention(model, 64):
        assert (model(image) - expected).abs().max() > 1e-4
    with pytest.raises(ValueError, match="multiple of 32"), local_attention(model, 48):
        pass


@torch.no_grad()
@pytest.mark.parametrize("parallel", [False, True])
def test_every_level_has_macro_tiles_of_its_own_and_the_model_is_as_before(parallel: bool) -> None:
    """Encoder, bottom, decoder, refinement: 16, 8 | 4 | 8, 16 | 16, in the order in which they run."""
    model, image = make(parallel=parallel), random(1, 3, 64, 48).float()
    modules, sides = list(model.named_modules()), []
    for module in model.modules():
        if isinstance(module, GGSA):
            module.register_forward_hook(lambda module, inputs, output: sides.append(tuple(inputs[0].shape[-2:])))
    with local_attention(model, 16):
        model(image)
    assert list(dict.fromkeys(sides)) == [(16, 16), (8, 8), (4, 4)]
    assert len(sides) == 6 * 4 * 3  # maps are 4 x 3 macro-tiles on all levels
    assert [side for side, after in zip(sides, [*sides[1:], None], strict=True) if side != after] == [
        (16, 16),
        (8, 8),
        (4, 4),
        (8, 8),
        (16, 16),
    ]
    assert list(model.named_modules()) == modules
    with pytest.raises(ValueError, match="expected images"), local_attention(model, 16):
        model(image[0])
    assert list(model.named_modules()) == modules


@pytest.mark.parametrize("base", [0, 24, -16])
def test_a_base_that_grids_do_not_divide_is_refused(base: int) -> None:
    with (
        pytest.raises(ValueError, match=f"multiple of 16 pixels for local attention, got {base}"),
        local_attention(make(), base),
    ):
        pass
