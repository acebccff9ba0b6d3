"""Inception Score (Salimans et al. 2016) as the ADM suite takes it: splits of 5000 images in the order of the files.

A score needs only sums over each split, which those of several shards add up to.
"""

import torch
from torch import Tensor

SPLIT = 5000  # images


class ScoreSums:
    def __init__(self, images: int, classes: int, device: torch.device | str = "cpu") -> None:
        """For a set of that many images; the last split holds what is left over."""
        splits = -(-images // SPLIT)
        self.counts = torch.zeros(splits, dtype=torch.float64, device=device)
        self.probabilities = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.entropies = torch.zeros(splits, dtype=torch.float64, device=device)  # sums of p log p

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The sums themselves, to be added in place."""
        return self.counts, self.probabilities, self.entropies

    def add(self, logits: Tensor, first: int) -> None:
        """(B, classes) of the images `first`, `first` + 1, ... of the set."""
        logs = logits.to(self.probabilities).log_softmax(1)
        split = torch.arange(first, first + len(logits), device=logs.device) // SPLIT
        self.counts.index_add_(0, split, torch.ones_like(logs[:, 0]))
        self.probabilities.index_add_(0, split, logs.exp())
        self.entropies.index_add_(0, split, (logs.exp() * logs).sum(1))

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits of exp(mean KL(p(y|x) || p(y)))."""
        marginal = self.probabilities / self.counts[:, None]
        divergence = self.entropies / self.counts - torch.special.xlogy(marginal, marginal).sum(1)
        scores = divergence.exp()
        return scores.mean().item(), scores.std(correction=0).item()
