"""Precision and recall of generated images by their nearest neighbours (Kynkäänniemi et al. 2019).

A set's manifold is the union of balls around its features, each reaching to the k-th nearest other one. Distances come
in tiles: of 50,000 x 50,000 of them only TILE x TILE are ever held.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 3
TILE = 5000  # rows and columns of distances held at once: 100 MB


def precision_recall(generated: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """(N, d) and (M, d) -> share of generated inside the manifold of the real ones, and the other way round.

    ValueError unless both have more than `neighbours` rows, of one width.
    """
    _check(generated, real, neighbours)
    centre = real.mean(0)  # float32 distances lose less near the origin
    generated, real = generated - centre, real - centre
    precision = _share_inside(generated, real, _radii(real, neighbours))
    return precision, _share_inside(real, generated, _radii(generated, neighbours))


def _tiles(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Distances of a few rows to the columns, part by part."""
    for part in columns.split(TILE):
        yield torch.cdist(rows, part)


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """(N,) distances to the k-th nearest other row; the nearest of all is the row itself."""
    found = []
    for rows in features.split(TILE):
        nearest = rows.new_full((len(rows), neighbours + 1), torch.inf)
        for distances in _tiles(rows, features):
            nearest = torch.cat([nearest, distances], 1).topk(neighbours + 1, largest=False).values
        found.append(nearest[:, -1])
    return torch.cat(found)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    inside = 0
    for rows in points.split(TILE):
        hit = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for distances, reach in zip(_tiles(rows, centres), radii.split(TILE), strict=True):
            hit |= (distances <= reach).any(1)
        inside += int(hit.sum())
    return inside / len(points)


def _check(generated: Tensor, real: Tensor, neighbours: int) -> None:
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(f"expected features (N, d) and (M, d), got {tuple(generated.shape)} and {tuple(real.shape)}")
    if min(len(generated), len(real)) <= neighbours:
        raise ValueError(
            f"precision and recall need more than {neighbours} images of each kind, got {len(generated)} and {len(real)}"
        )
