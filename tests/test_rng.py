"""Randomness derived from integers. The pinned values keep published seeds valid: a change of them is a break."""

import pytest
import torch

from iptv2_diffusion.rng import derived_generator, permutation

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
PINNED = {  # keys -> seed of the generator, its first two numbers
    (0,): (893442142816765029, [0.4111027969243122, 0.10151431811186384]),
    (1, 2): (5934340693050249675, [0.506066968942304, 0.5886732719465884]),
    (-1,): (1623352975185328750, [0.04165886856842249, 0.6651299855347114]),
    (LARGEST, SMALLEST): (9209547490153130471, [0.34435079119845113, 0.315062577084709]),
}


def numbers(*keys: int) -> list[float]:
    return torch.rand(4, generator=derived_generator(*keys), dtype=torch.float64).tolist()


@pytest.mark.parametrize("keys", PINNED)
def test_first_numbers_are_pinned(keys: tuple[int, ...]) -> None:
    seed, first = PINNED[keys]
    assert derived_generator(*keys).initial_seed() == seed
    assert numbers(*keys)[:2] == first


def test_a_permutation_is_pinned() -> None:
    assert permutation(10, 0, 0, 0).tolist() == [5, 4, 0, 6, 7, 1, 9, 2, 8, 3]


def test_equal_keys_give_equal_numbers_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first = numbers(5, 6)
    numbers(7)
    assert numbers(5, 6) == first
    assert torch.get_rng_state().equal(state)


def test_values_order_and_number_of_keys_matter() -> None:
    keys = [(), (0,), (0, 0), (1,), (-1,), (1, 2), (2, 1), (12,), (1, 2, 0), (2**32,), (2**32 + 1,), (LARGEST,)]
    assert len({tuple(numbers(*each)) for each in [*keys, (SMALLEST,), (LARGEST - 1,)]}) == 14


def test_neighbours_do_not_resemble_each_other() -> None:
    rows = torch.stack([torch.randn(400, generator=derived_generator(0, position)) for position in range(40)])
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.25  # 5 standard deviations


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_a_permutation_holds_every_number_once(count: int) -> None:
    order = permutation(count, 3)
    assert order.dtype == torch.int64
    assert order.sort().values.equal(torch.arange(count))


def test_permutations_depend_on_all_keys() -> None:
    orders = [permutation(100, *keys).tolist() for keys in [(0,), (0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order) for order in [*orders, range(100)]}) == 5
    assert permutation(100, 0, 1).tolist() == orders[2]


def test_each_place_gets_each_number_about_as_often() -> None:
    orders = torch.stack([permutation(5, seed) for seed in range(2000)])
    counts = torch.stack([place.bincount(minlength=5) for place in orders.T])
    assert (counts - 400).abs().max() < 90  # 5 standard deviations
