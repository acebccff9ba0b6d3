import logging
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from dummy import GaussianDenoiser, real_pipeline, seeded, tiny_vae

from iptv2_diffusion import IPTV2Pipeline
from iptv2_diffusion.diffusion.schedule import make_scheduler, paper_scheduler

ID2LABEL = {0: "cat, Felis", 1: "dog", 4: "fish"}

FRESH_PROCESS = """
import sys, torch, iptv2_diffusion
pipe = iptv2_diffusion.IPTV2Pipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
generator = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
images = pipe(["felis", 4], generator=generator, num_inference_steps=3, output_type="pt").images
torch.save(images, sys.argv[2])
"""


@pytest.mark.parametrize("id2label", [ID2LABEL, {str(index): name for index, name in ID2LABEL.items()}])
def test_round_trip_in_this_process_and_a_fresh_one(
    id2label: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = real_pipeline(id2label=id2label)
    expected = pipe(["felis", 4], generator=seeded(1, 2), num_inference_steps=3, output_type="pt").images
    pipe.save_pretrained(tmp_path / "saved")
    index = (tmp_path / "saved" / "model_index.json").read_text()
    assert '"iptv2_diffusion",\n    "IPTV2Transformer2DModel"' in index
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        loaded: Any = IPTV2Pipeline.from_pretrained(tmp_path / "saved")
    assert caplog.messages == []
    assert (loaded.id2label, type(loaded.scheduler)) == (ID2LABEL, type(pipe.scheduler))
    loaded.set_progress_bar_config(disable=True)
    again = loaded(["felis", 4], generator=seeded(1, 2), num_inference_steps=3, output_type="pt").images
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)  # kernels round by the alignment of the weights
    for name, weight in loaded.transformer.state_dict().items():
        assert torch.equal(weight, pipe.transformer.state_dict()[name]), name
    output = tmp_path / "images.pt"
    (tmp_path / "script.py").write_text(FRESH_PROCESS)
    forked.run(tmp_path / "process", tmp_path / "script.py", tmp_path / "saved", output)
    torch.testing.assert_close(torch.load(output, weights_only=True), expected, rtol=0, atol=1e-4)


def test_components_can_be_replaced_while_loading(tmp_path: Path) -> None:
    pipe = real_pipeline()
    pipe.save_pretrained(tmp_path)
    scheduler = make_scheduler("unipc", pipe.scheduler.config, learned_sigma=True)
    loaded = IPTV2Pipeline.from_pretrained(tmp_path, transformer=pipe.transformer, scheduler=scheduler)
    assert loaded.transformer is pipe.transformer
    assert loaded.config["scheduler"] == ("diffusers", "UniPCMultistepScheduler")


def test_a_pipeline_without_names_round_trips(tmp_path: Path) -> None:
    IPTV2Pipeline(GaussianDenoiser(), tiny_vae(), paper_scheduler()).save_pretrained(tmp_path)
    loaded = IPTV2Pipeline.from_pretrained(tmp_path)
    assert loaded.id2label == {}
    assert dict(loaded.scheduler.config).items() >= {"variance_type": "learned_range"}.items()
