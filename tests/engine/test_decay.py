"""The profiles that names of averages stand for."""

import numpy as np
import pytest

from iptv2_diffusion.engine.decay import check_name, decay, gamma


def test_exponents_are_those_of_the_paper():
    """Karras et al. 2024 name 16.97 and 6.94 for the widths 0.05 and 0.10."""
    assert [round(gamma(sigma), 2) for sigma in (0.05, 0.1)] == [16.97, 6.94]


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.25])
def test_the_profile_has_the_width_of_its_name(sigma):
    """Standard deviation over training of the shares that 4,000 updates leave; the discrete sum is 1e-3 from the integral."""
    updates = 4000
    betas = np.array([decay(f"power-{sigma}", update) for update in range(1, updates + 1)])
    shares = (1 - betas) * np.append(np.cumprod(betas[:0:-1])[::-1], 1.0)
    times = np.arange(1, updates + 1) / updates
    mean = (shares * times).sum()
    assert shares.sum() == pytest.approx(1)
    assert np.sqrt((shares * (times - mean) ** 2).sum()) == pytest.approx(sigma, rel=1e-3)


def test_a_decay_is_constant():
    assert [decay("0.9999", update) for update in (1, 2, 1000)] == [0.9999] * 3
    assert decay("power-0.05", 1) == 0  # the first update forgets the initial weights


@pytest.mark.parametrize(
    "name", ["1", "-0.1", "nan", "x", "", "power-", "power-0", "power-0.29", "power-nan", "power0.1"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"ema: expected decays in .*, got {name}$"):
        check_name(name)
