"""Local Attribution Maps: the method against a NumPy one, and what they show of the attentions' reach."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from iptv2_diffusion.layers.attention import FCSA, GGSA
from iptv2_diffusion.layers.conv import INITS, Conv
from iptv2_diffusion.restoration import attribution
from iptv2_diffusion.restoration.attribution import (
    Attribution,
    blur_path,
    edges,
    gini,
    local_attribution,
    picture,
    pixels_holding,
    seismic,
)

SIDE = 3  # of the patches below


def noise(channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.rand(channels, height, width, generator=generator, dtype=torch.float64)


def initialised(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double().eval()


def smooth_network() -> nn.Module:
    init = INITS["torch"]
    return initialised(lambda: nn.Sequential(Conv(3, 8, 3, init=init), nn.Tanh(), Conv(8, 3, 3, init=init)))


def gaussian(sigma: float, size: int) -> np.ndarray:
    """The size x size kernel, written out."""
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = np.exp(-(x**2 + y**2) / (2 * (sigma + 1e-5) ** 2))
    return kernel / kernel.sum()


def test_the_path_is_the_image_under_ever_narrower_gaussians_with_reflected_borders() -> None:
    image = noise(2, 7, 11)
    path = blur_path(image, fold=4, sigma=1.2, kernel=9)
    for step, sigma in enumerate([1.2, 0.9, 0.6, 0.3, 0.0]):
        expected = [ndimage.correlate(channel, gaussian(sigma, 9), mode="mirror") for channel in image.numpy()]
        np.testing.assert_allclose(path[step].numpy(), np.stack(expected), atol=1e-12)
    assert torch.equal(path[-1], image)


def test_the_detector_sums_the_lengths_of_gradients() -> None:
    output = noise(3, 8, 9)
    expected = 0.0
    for channel in output.numpy():
        for y in range(2, 2 + SIDE):
            for x in range(4, 4 + SIDE):
                expected += np.hypot(channel[y, x] - channel[y + 1, x], channel[y, x] - channel[y, x + 1])
    assert float(edges(output[None], (2, 4), SIDE)) == pytest.approx(expected, abs=1e-9)


def test_equals_the_riemann_sum_written_out() -> None:
    model, image, fold = smooth_network(), noise(3, 14, 13), 6
    blurred = []
    for sigma in np.linspace(1.2, 0, fold + 1):
        channels = [ndimage.correlate(channel, gaussian(sigma, 9), mode="mirror") for channel in image.numpy()]
        blurred.append(torch.from_numpy(np.stack(channels)))
    expected = torch.zeros_like(image)
    for k in range(1, fold + 1):
        point = blurred[k][None].clone().requires_grad_()
        edges(model(point), (5, 4), SIDE).backward()
        assert point.grad is not None
        expected += point.grad[0] * fold * (blurred[k] - blurred[k - 1]) / fold
    for batch in (1, 4, 6):
        found = local_attribution(model, image, (5, 4), SIDE, fold, batch=batch)
        torch.testing.assert_close(found.raw, expected, rtol=1e-9, atol=1e-12)


def test_completeness_attributions_sum_to_the_change_of_the_detector() -> None:
    model, image = smooth_network(), noise(3, 24, 24)
    errors = []
    for fold in (8, 32, 128):
        found = local_attribution(model, image, (9, 7), 6, fold, batch=32)
        errors.append(abs(float(found.raw.sum()) - found.change) / abs(found.change))
    assert errors[0] > 2.5 * errors[1] > 2.5 * 2.5 * errors[2]  # right sums: the error goes with 1 / fold
    assert errors[2] < 0.02


def used(patch: tuple[int, int]) -> set[tuple[int, int]]:
    """Output pixels that the detector looks at."""
    pixels = [(y, x) for y in range(patch[0], patch[0] + SIDE) for x in range(patch[1], patch[1] + SIDE)]
    return {(y + down, x + right) for y, x in pixels for down, right in ((0, 0), (1, 0), (0, 1))}


def grown(pixels: set[tuple[int, int]], reach: int, size: int) -> set[tuple[int, int]]:
    steps = range(-reach, reach + 1)
    moved = {(y + down, x + right) for y, x in pixels for down in steps for right in steps}
    return {(y, x) for y, x in moved if 0 <= y < size and 0 <= x < size}


def support(model: nn.Module, channels: int, size: int, patch: tuple[int, int]) -> set[tuple[int, int]]:
    found = local_attribution(model, noise(channels, size, size), patch, SIDE, fold=3)
    return {(int(y), int(x)) for y, x in found.raw.abs().sum(0).nonzero()}


def test_the_identity_sees_the_patch_only() -> None:
    assert support(nn.Identity(), 3, 20, (6, 9)) == used((6, 9))


def test_convolutions_see_their_receptive_field() -> None:
    init = INITS["torch"]
    model = initialised(lambda: nn.Sequential(*(Conv(2, 2, 3, init=init) for _ in range(3))))
    assert support(model, 2, 24, (10, 12)) == grown(used((10, 12)), 3, 24)


@pytest.mark.parametrize("patch", [(9, 10), (6, 2), (20, 27)])
def test_fcsa_is_focal_it_sees_the_windows_around_the_patch(patch: tuple[int, int]) -> None:
    """The window of each pixel, its displaced window inside the map, and the reach of the depthwise convolution."""
    size, window = 32, 8
    model = initialised(lambda: FCSA(4, 2, window, init=INITS["torch"]))
    seen: set[tuple[int, int]] = set()
    for y, x in used(patch):
        corners = [(y // window * window, x // window * window)]
        displaced = ((y - 4) // window * window + 4, (x - 4) // window * window + 4)
        if min(displaced) >= 4 and max(displaced) + window <= size - 4:
            corners.append(displaced)
        for top, left in corners:
            seen |= {(i, j) for i in range(top, top + window) for j in range(left, left + window)}
    expected = grown(seen, 1, size)
    assert len(expected) < size**2
    assert support(model, 4, size, patch) == expected


def test_ggsa_is_global_it_sees_a_grid_over_the_whole_map() -> None:
    size, grid = 32, 4
    model = initialised(lambda: GGSA(4, 2, grid, init=INITS["torch"]))
    cubby = size // grid
    places = {(y % cubby, x % cubby) for y, x in used((9, 10))}
    expected = {(y, x) for y in range(size) for x in range(size) if (y % cubby, x % cubby) in places}
    assert len(expected) == grid**2 * len(places)
    assert support(model, 4, size, (9, 10)) == expected


def test_ggsa_diffuses_more_than_fcsa_and_that_more_than_the_identity() -> None:
    init, image = INITS["torch"], noise(4, 32, 32)
    models = [
        nn.Identity(),
        initialised(lambda: FCSA(4, 2, 8, init=init)),
        initialised(lambda: nn.Sequential(FCSA(4, 2, 8, init=init), GGSA(4, 2, 4, init=init))),
    ]
    indices = [local_attribution(model, image, (9, 10), SIDE, fold=3).diffusion_index for model in models]
    assert indices[0] < indices[1] < indices[2]
    assert indices[0] < 100 * len(used((9, 10))) / 32**2


def test_gini() -> None:
    assert gini(torch.full((5, 7), 0.3)) == pytest.approx(0, abs=1e-12)
    for count in (2, 10):
        assert gini(torch.eye(count)[0]) == pytest.approx((count - 1) / count, abs=1e-12)
    values = noise(1, 6, 5).flatten().numpy()
    pairs = np.abs(values[:, None] - values).sum() / (2 * len(values) ** 2 * values.mean())
    assert gini(torch.from_numpy(values)) == pytest.approx(pairs, abs=1e-12)


def test_the_map_is_the_magnitude_of_the_sum_over_channels() -> None:
    raw = torch.tensor([[[1.0, -2.0], [0.0, 3.0]], [[1.0, -2.0], [0.0, -3.0]]])
    found = Attribution(raw, 0.0)
    assert found.map.tolist() == [[0.5, 1.0], [0.0, 0.0]]
    assert found.diffusion_index == pytest.approx(100 * (1 - (-3 * 0 - 1 * 0 + 1 * 0.5 + 3 * 1) / (4 * 1.5)))
    assert pixels_holding(torch.tensor([50.0, 5.0, 30.0, 15.0])) == 3
    assert pixels_holding(torch.tensor([50.0, 5.0, 30.0, 15.0]), share=0.5) == 1


@pytest.mark.parametrize(
    ("shape", "patch", "options", "words"),
    [
        ((1, 3, 16, 16), (0, 0), {}, r"one image \(C, H, W\), got \(1, 3, 16, 16\)"),
        ((3, 16, 16), (13, 0), {}, r"16x16; got its corner at \(13, 0\)"),
        ((3, 16, 16), (0, -1), {}, r"corner at \(0, -1\)"),
        ((3, 16, 16), (0, 0), {"kernel": 8}, "odd kernel"),
        ((3, 16, 4), (0, 0), {}, "odd kernel"),
        ((3, 16, 16), (4, 4), {}, r"the output at \(4, 4\) does not depend"),
    ],
)
def test_what_cannot_be_attributed_is_refused(shape, patch, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        local_attribution(nn.Identity(), torch.zeros(shape), patch, SIDE, fold=2, **options)


def test_seismic_is_matplotlibs() -> None:
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(seismic(values[[0, 50, 100]]), [(0, 0, 0.3), (1, 1, 1), (0.5, 0, 0)])
    colormaps = pytest.importorskip("matplotlib", reason="the reference is matplotlib's colour map").colormaps
    np.testing.assert_allclose(seismic(values), colormaps["seismic"](values)[:, :3], atol=0.01)  # it has 256 colours


def test_the_picture_shows_the_patch_and_the_map_over_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "SMALLEST_PICTURE", 40)
    raw = torch.zeros(1, 10, 20)
    raw[0, 8, 3], raw[0, 8, 4] = -2.0, 1.0
    sheet = picture(torch.full((1, 10, 20), 0.2), (1, 2), 4, {"net": Attribution(raw, 0.0)})
    pixels = np.asarray(sheet).astype(int)
    left, right = (pixels[4:24, start : start + 40] for start in (4, 48))  # pixels doubled, between gaps of 4
    for panel in (left, right):
        rows, columns = np.nonzero((panel == (255, 0, 0)).all(-1))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 9, 4, 11)
        assert len(rows) == 4 * 7
    assert (left[16, 6] == 51).all()
    assert right[0, 0].tolist() == [153, 153, 153]  # half white, half the image
    assert right[16, 6].tolist() == [89, 26, 26]  # half dark red
    assert right[16, 8].tolist() == [153, 26, 26]  # half red
    assert isinstance(sheet, Image.Image)
