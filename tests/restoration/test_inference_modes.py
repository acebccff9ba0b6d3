"""`restore` in tiles, as self-ensemble, with local attention; and what happens to tiles that are not finite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_restorer import CLOSE, identity, levels, make, random

from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.layers.attention import GGSA
from iptv2_diffusion.restoration import inference
from iptv2_diffusion.restoration.inference import ensembled, mean
from iptv2_diffusion.restoration.tiling import Layout, tiled


@torch.no_grad()
def test_both_views_of_a_dual_pixel_pair_give_one_image() -> None:
    model, image = make(in_channels=6), levels(np.uint16, 13, 22, 6)
    out = model.restore(image, tile=16, overlap=4, ensemble=True)
    assert (out.shape, out.dtype) == ((13, 22, 3), np.uint16)


@torch.no_grad()
@pytest.mark.parametrize("tile", [32, 25, "auto"])
def test_a_tile_as_large_as_the_image_is_the_whole_image_bit_for_bit(tile: Any) -> None:
    model, image = make(), random(1, 3, 25, 17)
    whole = model.restore(image, tile=None)
    assert torch.equal(model.restore(image, tile=tile), whole)
    assert torch.equal(whole, model(image).clamp(0, 1))
    assert not torch.equal(model.restore_tiled(image, tile=16, overlap=8), whole)


@torch.no_grad()
def test_tiles_of_focal_attention_equal_the_whole_image() -> None:
    """Without GGSA the receptive field is bounded, about 40 pixels here: windows lie as in the whole image."""
    model, image = make(attention=("fcsa",), layers=(1, 1)), random(1, 3, 30, 2 * 344)
    image = 0.25 + image / 2
    whole = model.restore(image, tile=None)
    torch.testing.assert_close(model.restore_tiled(image, tile=340, overlap=168), whole, rtol=0, atol=1e-5)
    assert (model.restore_tiled(image, tile=340, overlap=0) - whole).abs().max() > 1e-3


@torch.no_grad()
def test_tiles_of_unshuffled_focal_attention_equal_the_whole_image() -> None:
    """Twice the reach of the network above."""
    model, image = make(attention=("fcsa",), layers=(1, 1), unshuffle=2), random(1, 3, 32, 1376)
    image = 0.25 + image / 2
    whole = model.restore(image, tile=None)
    torch.testing.assert_close(model.restore_tiled(image, tile=688, overlap=336), whole, rtol=0, atol=1e-5)
    assert (model.restore_tiled(image, tile=688, overlap=0) - whole).abs().max() > 1e-3


def tile_sides(model: IPTV2Restorer) -> list[tuple[int, ...]]:
    """Filled with height and width of whatever the model is given."""
    sides: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda module, inputs: sides.append(tuple(inputs[0].shape[-2:])))
    return sides


def test_tiles_fit_free_memory_windows_and_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Window 8 and grid 3 on two levels: multiples of 24 a side, origins in multiples of 8."""
    model = identity(grid=3)
    per_pixel = inference.VALUES_PER_PIXEL * 4 * 4  # bytes, width 4
    monkeypatch.setattr(inference, "free_memory", lambda device: 2 * 50**2 * per_pixel)
    sides, image = tile_sides(model), random(3, 48, 100)
    assert torch.equal(model.restore(image), image)
    assert sides == [(48, 48), (48, 48), (48, 48), (48, 44)]  # half a tile overlaps; the last ends as the image does
    sides.clear()
    model.restore(image[:, :, :52])
    assert sides == [(48, 52)]
    sides.clear()
    model.restore(image, tile=40, overlap=5)
    assert sides == [(48, 48), (48, 48), (48, 44)]


def test_memory_that_runs_out_halves_tiles_but_not_those_that_were_not_asked_for() -> None:
    model, image = identity(), random(3, 40, 40)

    def limit(module: Any, inputs: Any) -> None:
        if inputs[0].shape[-1] > 16:
            raise MemoryError

    model.register_forward_pre_hook(limit)
    with pytest.warns(UserWarning, match="out of memory"):
        assert torch.equal(model.restore(image, tile=32, overlap=8), image)
    with pytest.raises(MemoryError):
        model.restore(image, tile=None)


def turned(image: torch.Tensor) -> Iterator[tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]]:
    """The 8 views by transposition and flips, with the way back."""
    for rows, columns, swapped in product((False, True), repeat=3):
        dims = [dim for dim, flip in ((-2, rows), (-1, columns)) if flip]

        def back(view: torch.Tensor, dims: list[int] = dims, swapped: bool = swapped) -> torch.Tensor:
            return (view.mT if swapped else view).flip(dims)

        view = image.flip(dims)
        yield (view.mT if swapped else view), back


@torch.no_grad()
def test_the_ensemble_is_the_mean_over_all_flips_and_turns() -> None:
    model, image = make(), 0.25 + random(1, 3, 17, 26) / 2
    views = [back(model(view)) for view, back in turned(image)]
    assert all(len({float(a.sub(b).abs().max()) > 1e-3 for b in views if b is not a}) == 1 for a in views)
    expected = torch.stack(views).mean(0).clamp(0, 1)
    torch.testing.assert_close(model.restore(image, ensemble=True), expected, **CLOSE)


def blurred(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, kernel[None, None], padding=kernel.shape[-1] // 2).tanh()


def test_an_equivariant_network_is_its_own_ensemble() -> None:
    image, kernel = random(1, 1, 9, 14).double(), random(5, 5).double() - 0.5
    kernel = mean(view for view, _ in turned(kernel))  # equal under all turns
    torch.testing.assert_close(
        ensembled(lambda x: blurred(x, kernel))(image), blurred(image, kernel), rtol=0, atol=1e-12
    )
    seen: list[torch.Tensor] = []
    ensembled(lambda x: (seen.append(x), x)[1])(image)
    assert len({view.numpy().tobytes() + bytes(view.shape) for view in seen}) == 8


def test_ensemble_and_tiles_commute() -> None:
    image, kernel, layout = random(1, 1, 90, 70).double(), random(9, 9).double() - 0.5, Layout.fitting(48, 16)
    run = ensembled(lambda x: blurred(x, kernel))
    tiles_of_ensembles = tiled(run, image, layout)
    ensemble_of_tiles = ensembled(lambda x: tiled(lambda part: blurred(part, kernel), x, layout))(image)
    torch.testing.assert_close(tiles_of_ensembles, ensemble_of_tiles, rtol=0, atol=1e-12)
    torch.testing.assert_close(tiles_of_ensembles, run(image), rtol=0, atol=1e-12)


def test_the_mean_of_equal_tensors_is_exact() -> None:
    values = random(1000)
    for count in (1, 2, 3, 8):
        assert torch.equal(mean([values] * count), values)
    torch.testing.assert_close(mean([values, 2 * values, 6 * values]), 3 * values)


def test_local_attention_is_used() -> None:
    model, image = make(), random(3, 40, 40)
    out = model.restore(image, local=16)
    assert (out - model.restore(image)).abs().max() > 1e-4
    assert torch.equal(model.restore(image, local=40), model.restore(image))


@contextmanager
def failing(model: IPTV2Restorer, fails: Callable[[IPTV2Restorer, torch.Tensor], bool]) -> Iterator[None]:
    """NaN somewhere in the result wherever `fails(model, tile)`."""

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        return torch.where(output == output.amax(), torch.nan, output) if fails(module, inputs[0]) else None

    hook = model.register_forward_hook(spoil)
    yield
    hook.remove()


def test_a_tile_that_cannot_be_restored_stays_and_is_reported() -> None:
    model, image = make(), random(1, 3, 40, 16) / 2
    image[:, :, :17] += 0.5
    expected = model.restore(image, tile=16, overlap=0)
    expected[:, :, :16] = image[:, :, :16]
    with (
        failing(model, lambda model, tile: bool(tile.min() >= 0.5)),
        pytest.warns(RuntimeWarning, match="1 tiles were not finite; 1 of them could not be restored"),
    ):
        torch.testing.assert_close(model.restore(image, tile=16, overlap=0), expected, rtol=0, atol=0)


def test_a_dual_pixel_tile_that_cannot_be_restored_is_the_middle_of_both_views() -> None:
    model, image = make(in_channels=6), random(1, 6, 16, 16)
    with failing(model, lambda model, tile: True), pytest.warns(RuntimeWarning, match="1 tiles"):
        out = model.restore(image)
    torch.testing.assert_close(out, (image[:, :3] + image[:, 3:]) / 2)


def test_a_half_precision_tile_is_run_again_in_float32() -> None:
    model, image = make().bfloat16(), random(1, 3, 16, 16)
    full = make()
    full.load_state_dict(model.state_dict())
    with (
        failing(model, lambda model, tile: model.dtype == torch.bfloat16),
        pytest.warns(RuntimeWarning, match="1 tiles were not finite; 0 of them"),
    ):
        out = model.restore(image)
    assert torch.equal(out, full.restore(image))
    assert model.dtype == torch.bfloat16
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_a_tile_of_local_attention_is_run_again_with_global_attention() -> None:
    model, image = make(), random(1, 3, 32, 32)
    names = {name for name, module in model.named_modules() if isinstance(module, GGSA)}
    expected = model.restore(image)

    def is_local(model: IPTV2Restorer, tile: torch.Tensor) -> bool:
        return {name for name, module in model.named_modules() if isinstance(module, GGSA)} != names

    with failing(model, is_local), pytest.warns(RuntimeWarning, match="1 tiles were not finite; 0 of them"):
        assert torch.equal(model.restore(image, local=16), expected)


def test_the_model_keeps_its_mode_and_the_result_may_be_trained_on() -> None:
    model, image = make(), random(1, 3, 16, 16)
    model.train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    during: list[bool] = []
    model.backbone.register_forward_hook(lambda module, inputs, output: during.append(module.training))
    out = model.restore(image)
    assert during == [False]
    assert [module.training for module in model.modules()] == modes
    weight = torch.ones((), requires_grad=True)
    (out * weight).sum().backward()
    assert weight.grad == pytest.approx(float(out.sum()), rel=1e-4)


def test_progress_ends_with_all_pixels() -> None:
    done: list[int] = []
    identity().restore(levels(np.uint8, 20, 30), tile=8, overlap=0, on_progress=done.append)
    assert done[-1] == 20 * 30
    assert len(done) == 3 * 4
