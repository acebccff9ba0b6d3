"""Patches: the same place and turn in both pictures, any size, nothing but the generator decides."""

import numpy as np
import pytest
import torch

from iptv2_diffusion.data.degradations import parse_degradations
from iptv2_diffusion.data.patches import Chosen, CleanPatches, PairedPatches, to_tensor
from iptv2_diffusion.rng import derived_generator

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


class Photos:
    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> np.ndarray:
        return PHOTO + np.uint8(index)


class Pairs:
    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        clean = Photos().read(index)
        return np.concatenate([255 - clean, clean], 2), clean  # six channels, as of two views


def test_pairs_stay_aligned_through_crops_and_turns():
    source, seen = PairedPatches(Pairs()), set()
    for position in range(64):
        patch = source.patch(0, 16, derived_generator(1, position))
        assert patch["degraded"].shape == (6, 16, 16)
        torch.testing.assert_close(patch["degraded"][:3], 1 - patch["clean"], rtol=0, atol=1e-6)
        assert torch.equal(patch["degraded"][3:], patch["clean"])
        seen.add(patch["clean"].numpy().tobytes())
    assert len(seen) > 60


def test_all_eight_symmetries_appear():
    source = PairedPatches(Chosen(Pairs(), [1]))
    square = to_tensor(PHOTO + np.uint8(1))[:, :30]
    turns = [torch.rot90(square, k, (1, 2)) for k in range(4)]
    expected = {picture.numpy().tobytes() for turn in turns for picture in (turn, turn.flip(2))}
    seen = {source.patch(0, 30, derived_generator(2, i))["clean"].numpy().tobytes() for i in range(600)}
    assert len(expected & seen) == len(expected) == 8  # of the first of 11 places
    assert len(seen) == 88


@pytest.mark.parametrize("degradations", ["awgn:25", "motion:5-9,awgn:0-10", "defocus:2"])
def test_degraded_patches_have_the_asked_size_and_depend_on_the_generator_alone(degradations):
    source = CleanPatches(Photos(), parse_degradations(degradations))
    one, again, other = (source.patch(0, 16, derived_generator(seed)) for seed in (5, 5, 6))
    assert one["degraded"].shape == one["clean"].shape == (3, 16, 16)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["clean"], other["clean"])
    assert not torch.equal(one["degraded"], one["clean"])


def test_the_middle_and_the_whole():
    source = CleanPatches(Photos(), parse_degradations("awgn:0"))
    middle = source.patch(0, 16, derived_generator(0), centred=True)
    assert torch.equal(middle["clean"], to_tensor(PHOTO[12:28, 7:23]))
    whole = source.patch(0, None, derived_generator(0), centred=True)
    assert torch.equal(whole["degraded"], to_tensor(PHOTO))


def test_a_picture_smaller_than_the_patch_goes_on_by_reflection():
    source = CleanPatches(Photos(), parse_degradations("awgn:0"))
    patch = source.patch(0, 48, derived_generator(0), centred=True)["clean"]
    assert torch.equal(patch[:, :40, :30], to_tensor(PHOTO))
    assert torch.equal(patch[:, 40:, :], patch[:, 32:40, :].flip(1))
    assert torch.equal(patch[:, :, 30:], patch[:, :, 12:30].flip(2))


def test_sixteen_bits_keep_their_levels():
    pixels = np.array([[[0], [1], [65535]]], np.uint16)
    assert to_tensor(pixels).tolist() == [[[0.0, np.float32(1 / 65535), 1.0]]]
