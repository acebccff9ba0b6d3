"""What the paper prints for generation: Table 6, ImageNet 256x256, 50,000 samples of 250 DDPM steps.

Both models were trained in DiT's framework, 256 pictures a step.
"""

from dataclasses import dataclass

FIGURES = ("FID", "IS", "sFID", "precision", "recall")  # columns; FID and sFID the lower the better
DECIMALS = {"FID": 2, "IS": 2, "sFID": 2, "precision": 4, "recall": 4}


@dataclass(frozen=True, kw_only=True)
class Row:
    model: str
    cfg_scale: float
    gflops: float  # of one step
    iterations: str  # of training
    figures: tuple[float, ...]  # in the order of FIGURES


_TABLE_6 = """
DiT-S/2 1.0 6.06 200k 78.57 16.66 13.23 0.3245 0.5089
IPTV2-S 1.0 6.24 200k 43.59 34.50 9.76 0.4909 0.6095
DiT-S/2 1.0 6.06 400k 66.59 20.68 11.76 0.3728 0.5674
IPTV2-S 1.0 6.24 400k 32.69 48.18 8.99 0.5394 0.6268
DiT-S/2 1.0 6.06 600k 61.32 22.85 11.36 0.3929 0.5896
IPTV2-S 1.0 6.24 600k 28.70 55.69 8.82 0.5564 0.6419
DiT-S/2 1.0 6.06 800k 57.76 24.43 10.77 0.4102 0.6056
IPTV2-S 1.0 6.24 800k 26.27 60.87 8.57 0.5706 0.6361
DiT-S/2 1.5 6.06 200k 57.08 25.41 10.14 0.4061 0.5084
IPTV2-S 1.5 6.24 200k 20.68 73.92 7.39 0.6462 0.5278
DiT-S/2 1.5 6.06 400k 43.01 35.80 8.65 0.4826 0.5602
IPTV2-S 1.5 6.24 400k 11.65 114.14 6.43 0.7231 0.5225
DiT-S/2 1.5 6.06 600k 37.00 42.18 8.24 0.5123 0.5638
IPTV2-S 1.5 6.24 600k 9.05 134.66 6.25 0.7473 0.5235
DiT-S/2 1.5 6.06 800k 33.56 47.04 7.91 0.5378 0.5696
IPTV2-S 1.5 6.24 800k 7.71 147.47 6.07 0.7619 0.5240
"""


def _row(line: str) -> Row:
    model, cfg_scale, gflops, iterations, *figures = line.split()
    return Row(
        model=model,
        cfg_scale=float(cfg_scale),
        gflops=float(gflops),
        iterations=iterations,
        figures=tuple(map(float, figures)),
    )


TABLE_6: list[Row] = [_row(line) for line in _TABLE_6.strip().splitlines()]
