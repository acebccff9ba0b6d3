"""The names of averages, and the profiles over training that they stand for.

`0.9999` is a decay, constant from the first update. `power-0.05` has the power-function profile of EDM2 (Karras et al.
2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", Section 3): after t updates the weights of
time tau count in proportion to tau^gamma, and the standard deviation of the profile is 0.05 t, whatever t.
"""

from functools import cache

import numpy as np

POWER = "power-"
WIDEST = 0.28  # gamma = 0, all updates alike, is 0.2887


def check_name(name: str) -> None:
    """ValueError unless it names an average."""
    try:
        sound = 0 <= float(name) < 1 if is_constant(name) else 0 < sigma_rel(name) <= WIDEST
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(
            f"ema: expected decays in [0, 1) such as 0.9999, or power-SIGMA with SIGMA in (0, {WIDEST}], got {name}"
        )


def is_constant(name: str) -> bool:
    return not name.startswith(POWER)


def sigma_rel(name: str) -> float:
    """The relative width of the power-function average of that name."""
    return float(name.removeprefix(POWER))


@cache
def gamma(sigma: float) -> float:
    """The exponent of the profile of relative width `sigma`.

    sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), the variance of the density (gamma + 1) x^gamma on [0, 1].
    """
    roots = np.roots([1, 7, 16 - sigma**-2, 12 - sigma**-2])
    return float(roots.real.max())


def decay(name: str, update: int) -> float:
    """The share of the old average that update 1, 2, ... keeps."""
    if is_constant(name):
        return float(name)
    return (1 - 1 / update) ** (gamma(sigma_rel(name)) + 1)
