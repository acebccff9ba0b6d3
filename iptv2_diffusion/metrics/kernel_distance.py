"""Kernel distance (KID of Binkowski et al. 2018): squared MMD of the cubic kernel (x·y / d + 1)³, through torch-fidelity."""

import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

SUBSETS, SUBSET = 100, 1000


def kernel_distance(generated: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    """(N, d) and (M, d) -> mean and standard deviation over 100 random subsets of 1000 images of each kind, seed 2020.

    An unbiased estimate, which may be below 0. ValueError for fewer images.
    """
    if min(len(generated), len(real)) < SUBSET:
        raise ValueError(
            f"the kernel distance needs {SUBSET} images of each kind, got {len(generated)} and {len(real)}"
        )
    found = kid_features_to_metric(
        generated, real, kid_subsets=SUBSETS, kid_subset_size=SUBSET, rng_seed=2020, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
