"""Pictures in memory, for what reads them from data sets."""

from dataclasses import dataclass
from typing import Any

from iptv2_diffusion.cli.scoring import Origin

INPUT = Origin(model={"name": "input"})


@dataclass(frozen=True)
class Held:
    names: tuple[str, ...]
    content: tuple[Any, ...]

    def read(self, index: int) -> Any:
        return self.content[index]
