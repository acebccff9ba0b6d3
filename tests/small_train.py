"""`train.py` with networks that take milliseconds under the names of the presets."""

from collections.abc import Mapping
from typing import Any

from iptv2_diffusion.backbone.config import DENOISERS, RESTORERS
from iptv2_diffusion.cli.train import main

SMALL: dict[str, Any] = {"width": 8, "layers": (0, 2), "heads": (1, 1), "grid": 4, "refinement": 0}


def small(presets: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: fields | SMALL | ({"cond_dim": 16} if "cond_dim" in fields else {}) for name, fields in presets.items()
    }


if __name__ == "__main__":
    for presets in (DENOISERS, RESTORERS):
        presets.update(small(presets))
    main()
