from typing import Any

import torch
from dummy import tiny_vae

from iptv2_diffusion.diffusion.vae_hash import encoder_sha256


def test_the_hash_follows_the_encoder_and_nothing_else() -> None:
    vae: Any = tiny_vae()
    before = encoder_sha256(vae)
    assert len(before) == 64
    assert encoder_sha256(tiny_vae()) == before
    with torch.no_grad():
        for weight in (*vae.decoder.parameters(), *vae.post_quant_conv.parameters()):
            weight.add_(1)
    assert encoder_sha256(vae) == before
    for part in (vae.encoder.conv_in, vae.quant_conv):
        with torch.no_grad():
            part.bias[0] += 2**-20
        changed = encoder_sha256(vae)
        assert changed != before
        before = changed


def test_the_precision_that_weights_are_kept_in_does_not_matter() -> None:
    vae = tiny_vae()
    with torch.no_grad():
        for weight in vae.parameters():
            weight.copy_(weight.bfloat16())
    assert encoder_sha256(vae.bfloat16()) == encoder_sha256(vae.float())
