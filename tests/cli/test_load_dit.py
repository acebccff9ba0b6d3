"""DiT's weights as diffusers saves them: what they compute, what is drawn from them, and what they start."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image

from iptv2_diffusion import DiTDenoiser
from iptv2_diffusion.cli.load import load_denoiser, load_pipeline
from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.diffusion.dit_weights import from_diffusers
from iptv2_diffusion.diffusion.vae_files import load_vae

TINY: dict[str, Any] = {
    "sample_size": 8,
    "out_channels": 8,
    "num_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_embeds_ada_norm": 5,
}
NAMES = {str(index): f"thing {index}, the {'abcde'[index]}" for index in range(5)}


def make(**fields: Any) -> Any:
    """Random weights, the same embedding in every layer."""
    model: Any = DiTTransformer2DModel(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    first, *others = (block.norm1.emb for block in model.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    return model


@pytest.fixture
def published(tmp_path: Path, small_vae: Path) -> Path:
    """With the class names in its index, where diffusers reads but does not write them."""
    schedule: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    scheduler: Any = DDIMScheduler(**schedule)
    DiTPipeline(make(), load_vae(small_vae), scheduler).save_pretrained(tmp_path / "dit")
    index = tmp_path / "dit" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": NAMES}))
    return tmp_path / "dit"


def test_it_computes_what_diffusers_does() -> None:
    """With DiT's own frequencies and epsilon in the place of diffusers'."""
    theirs = make(norm_eps=1e-6)
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    ours: Any = from_diffusers(theirs)
    x, t = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 9, 99, 500, 999])
    labels = torch.arange(6)
    assert ours.null_label == 5
    with torch.no_grad():
        expected = theirs(x, t, labels).sample
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x, t, labels).sample, expected, rtol=1e-5, atol=1e-5)


def test_a_saved_pipeline_becomes_ours(published: Path) -> None:
    pipeline, theirs = load_pipeline(str(published)), DiTPipeline.from_pretrained(published)
    assert type(pipeline.transformer) is DiTDenoiser
    assert type(pipeline.scheduler) is DDIMScheduler
    assert pipeline.scheduler.config["beta_end"] == 0.02
    assert {name: pipeline.get_label_ids(name)[0] for name in theirs.labels} == theirs.labels
    assert theirs.labels["the d"] == 3
    assert pipeline.id2label[4] == "thing 4, the e"
    for name, weight in load_denoiser(str(published)).state_dict().items():
        assert weight.equal(pipeline.transformer.state_dict()[name])
    other = load_pipeline(str(published), vae=str(published / "vae")).vae
    assert other.state_dict().keys() == pipeline.vae.state_dict().keys()


def test_the_older_name_of_the_class(published: Path) -> None:
    for name, parts in (("model_index.json", "transformer"), ("transformer/config.json", "_class_name")):
        content = json.loads((published / name).read_text())
        older = ["diffusers", "Transformer2DModel"] if parts == "transformer" else "Transformer2DModel"
        (published / name).write_text(json.dumps(content | {parts: older}))
    assert type(load_pipeline(str(published)).transformer) is DiTDenoiser


@pytest.mark.parametrize(("scheduler", "name"), [(None, "DDIMScheduler"), ("ddpm", "DDPMScheduler")])
def test_samples_are_drawn(published: Path, tmp_path: Path, command: Any, scheduler: str | None, name: str) -> None:
    flags = ("--ckpt", published, "--steps", 2, "--classes", "the d", "--device", "cpu", "--output", tmp_path / "new")
    command("sample", *flags, *(() if scheduler is None else ("--scheduler", scheduler)))
    with Image.open(tmp_path / "new" / "000000.png") as picture:
        record = json.loads(picture.info[METADATA_KEY])
    assert (record["label"], record["name"], record["scheduler"]) == (3, "thing 3", name)
    learned = record["scheduler_config"].get("variance_type") == "learned_range"
    assert learned == (scheduler == "ddpm")


def test_what_is_no_dit_is_refused(published: Path) -> None:
    with pytest.raises(ValueError, match="expected DiT's transformer, got one with activation_fn gelu, not gelu-app"):
        from_diffusers(make(activation_fn="gelu"))
    theirs = make()
    theirs.transformer_blocks[2].norm1.emb.class_embedder.embedding_table.weight.data[3] += 1
    with pytest.raises(ValueError, match=r"in every layer, transformer_blocks\.2\.norm1\.emb\.class_embedder"):
        from_diffusers(theirs)
    weights = published / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot load the denoiser in .*dit"):
        load_denoiser(str(published))
