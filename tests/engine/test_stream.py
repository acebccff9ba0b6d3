"""Which positions of the stream each step, process and micro-batch gets."""

import multiprocessing

import pytest
from toy import ToyTask, toy_config

from iptv2_diffusion.engine.stream import make_loader, micro_batches, micro_batches_per_step, share_of


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("micro_batch", [None, 1, 3, 100])
def test_every_step_covers_its_positions_once(tmp_path, processes, micro_batch):
    config = toy_config(tmp_path, steps=5, batch_size=8, micro_batch=micro_batch)
    count = micro_batches_per_step(config, config.plan.at(0), processes)
    seen = [list(micro_batches(config, rank, processes, start=3)) for rank in range(processes)]
    for step in (0, 1):  # the two left of five
        parts = [part for share in seen for part in share[step * count : (step + 1) * count]]
        assert sorted(position for part in parts for position in part) == list(range((3 + step) * 8, (4 + step) * 8))
        assert all(len(part) <= (micro_batch or 8) for part in parts)
    assert all(len(share) == 2 * count for share in seen)


def test_unequal_shares_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes, got 8"):
        share_of(toy_config(tmp_path, batch_size=8).plan.at(0), processes=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_keeps_the_order(tmp_path, workers):
    config = toy_config(tmp_path, steps=3, batch_size=4, micro_batch=2, workers=workers)
    loader = make_loader(ToyTask(), config, rank=0, processes=1, start=1, pin_memory=False)
    positions = [batch["position"].tolist() for batch in loader]
    assert positions == [[4, 5], [6, 7], [8, 9], [10, 11]]


def test_workers_need_no_pickling(tmp_path, monkeypatch):
    """Newer versions of Python, and other systems, would send the workers a copy of everything."""
    task = ToyTask()
    monkeypatch.setattr(task, "unpicklable", lambda: None, raising=False)
    former = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        loader = make_loader(task, toy_config(tmp_path, workers=1), rank=0, processes=1, start=5, pin_memory=False)
        assert [batch["position"].tolist() for batch in loader] == [list(range(40, 48))]
    finally:
        multiprocessing.set_start_method(former, force=True)
