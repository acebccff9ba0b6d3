"""The eight cases of the EXIF standard: from the stored picture to the upright one."""

from collections.abc import Callable

import numpy as np

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # where row 0 and column 0 of the stored picture belong
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
