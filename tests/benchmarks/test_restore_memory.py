"""`benchmarks.restore_memory` on a small picture: what it computes, and that every tile is restored."""

import pytest
import torch

from benchmarks import restore_memory
from iptv2_diffusion import IPTV2Restorer


@pytest.mark.parametrize(("computed", "tiles"), [(None, 12), (2, 2)])
def test_reports_the_tiles_that_it_computes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], computed: int | None, tiles: int
) -> None:
    runs = []
    forward = IPTV2Restorer.forward

    def counted(model: IPTV2Restorer, image: torch.Tensor) -> torch.Tensor:
        runs.append(image.shape)
        return forward(model, image)

    monkeypatch.setattr(IPTV2Restorer, "forward", counted)
    restore_memory.measure("IPTV2-Lite", 0.016, 64, computed)
    assert len(runs) == tiles
    name, pixels, tile, shown, peak, seconds = (
        cell.strip() for cell in capsys.readouterr().out.strip("|\n").split("|")
    )
    assert (name, pixels, tile, shown) == ("IPTV2-Lite", "153x102", "64", "all" if computed is None else "2")
    assert float(peak) > 100
    assert float(seconds) >= 0
