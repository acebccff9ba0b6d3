"""The Inception network with random weights: the published ones cannot be fetched everywhere."""

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def random_inception() -> FeatureExtractorInceptionV3:
    """torch-fidelity's own, for pool features and logits, of weights that keep features about as large as pixels."""
    with ExitStack() as stack:
        source = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
        stack.enter_context(patch(source, return_value={}))
        stack.enter_context(patch.object(FeatureExtractorInceptionV3, "load_state_dict"))
        network = FeatureExtractorInceptionV3("plain", ["2048", "logits_unbiased"])
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith(".conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return network
