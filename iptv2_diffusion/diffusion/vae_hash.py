"""Telling VAEs apart by what they do, wherever their files lie."""

import hashlib
from typing import Any

import torch

ENCODER = ("encoder.", "quant_conv.")


def encoder_sha256(vae: Any) -> str:
    """Of the weights that latents depend on, taken as float32, with their names and shapes.

    VAEs with one encoder and different decoders, such as stabilityai/sd-vae-ft-ema and -mse, have the same.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        if name.startswith(ENCODER):
            digest.update(f"{name} {tuple(weight.shape)}\n".encode())
            digest.update(weight.to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()
