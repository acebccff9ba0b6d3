"""The baseline against DiT's paper: its function written out, its initialisation, its cost; and its place in here."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dummy import seeded, tiny_vae
from torch import Tensor

from iptv2_diffusion import DiTDenoiser, IPTV2Pipeline, create_denoiser
from iptv2_diffusion.backbone.compiling import compile_layers
from iptv2_diffusion.diffusion.schedule import make_scheduler, paper_scheduler
from iptv2_diffusion.metrics.complexity import macs, parameters

TINY: dict[str, Any] = {
    "sample_size": 8,
    "num_classes": 5,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
}
# Of DiT's paper (Table 4); it counts the fixed position embedding among the parameters.
PUBLISHED = {"DiT-S/2": (6.06, 33), "DiT-B/2": (23.01, 130), "DiT-L/2": (80.71, 458), "DiT-XL/2": (118.64, 675)}


def make(**fields: Any) -> Any:
    """Every parameter moved off its initial value, which may be zero."""
    model = DiTDenoiser(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(side: int = 8, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, side, side, generator=generator)
    return x, torch.randint(0, 1000, (batch,), generator=generator), torch.tensor([0, 4, 5])[:batch]


def cost(name: str, **fields: Any) -> tuple[int, int]:
    with torch.device("meta"):
        model = create_denoiser(name, **fields).eval()
        side = model.config["sample_size"]
        x, t, labels = torch.empty(1, 4, side, side), torch.zeros(1), torch.zeros(1, dtype=torch.long)
        return macs(model, x, t, labels), parameters(model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name: str) -> None:
    count, size = cost(name)
    assert count / 1e9 == pytest.approx(PUBLISHED[name][0], rel=1e-3)
    assert size / 1e6 == pytest.approx(PUBLISHED[name][1], rel=5e-3)


def test_the_tiny_one_costs_what_our_tiny_one_costs() -> None:
    count, size = cost("DiT-Ti/2")
    ours, _ = cost("IPTV2-Ti-16", fused=True)
    assert (count, ours) == (186_561_360, 188_352_512)
    assert abs(count / ours - 1) < 0.02
    assert size == 4_434_332


def position_embedding(side: int, width: int) -> Tensor:
    """(side^2, width): sine and cosine of the column, then of the row, each a quarter of the width."""
    rows = []
    for row in range(side):
        for column in range(side):
            frequencies = [10_000 ** (-4 * i / width) for i in range(width // 4)]
            sides = [[f(place * w) for f in (math.sin, math.cos) for w in frequencies] for place in (column, row)]
            rows.append([*sides[0], *sides[1]])
    return torch.tensor(rows, dtype=torch.float64)


def written_out(model: Any, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """DiT for one latent (C, H, H) in float64, from the weights of `model`."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    config, patch = model.config, model.config["patch_size"]
    heads, depth = config["num_attention_heads"], config["attention_head_dim"]
    width, side = heads * depth, x.shape[-1] // patch

    def linear(name: str, v: Tensor) -> Tensor:
        return F.linear(v, state[f"{name}.weight"], state[f"{name}.bias"])

    def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        centred = tokens - tokens.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    angles = float(t) * torch.tensor([10_000 ** (-i / 128) for i in range(128)], dtype=torch.float64)
    hidden = F.silu(linear("time_embedding.mlp.0", torch.cat([angles.cos(), angles.sin()])))
    cond = F.silu(linear("time_embedding.mlp.2", hidden) + state["label_embedding.weight"][int(labels)])
    patches = x.double().unfold(1, patch, patch).unfold(2, patch, patch)  # (C, h, w, p, p)
    kernel = state["transformer.pos_embed.proj.weight"]
    tokens = torch.einsum("chwpq,dcpq->hwd", patches, kernel).reshape(side**2, width)
    tokens = tokens + state["transformer.pos_embed.proj.bias"] + position_embedding(side, width)
    for layer in range(config["num_layers"]):
        name = f"transformer.transformer_blocks.{layer}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"{name}.norm1.linear", cond).chunk(6)
        normed = modulated(tokens, shift1, scale1)
        q, k, v = (linear(f"{name}.attn1.to_{part}", normed).view(-1, heads, depth).transpose(0, 1) for part in "qkv")
        attended = ((q @ k.transpose(1, 2) / depth**0.5).softmax(-1) @ v).transpose(0, 1).reshape(-1, width)
        tokens = tokens + gate1 * linear(f"{name}.attn1.to_out.0", attended)
        inner = F.gelu(linear(f"{name}.ff.net.0.proj", modulated(tokens, shift2, scale2)), approximate="tanh")
        tokens = tokens + gate2 * linear(f"{name}.ff.net.2", inner)
    shift, scale = linear("transformer.proj_out_1", cond).chunk(2)
    out = linear("transformer.proj_out_2", modulated(tokens, shift, scale)).view(side, side, patch, patch, -1)
    return out.permute(4, 0, 2, 1, 3).reshape(-1, side * patch, side * patch)


def test_it_is_dit() -> None:
    model, (x, t, labels) = make(), inputs()
    expected = torch.stack([written_out(model, *row) for row in zip(x, t, labels, strict=True)])
    with torch.no_grad():
        sample = model(x, t, labels).sample
        torch.testing.assert_close(sample.double(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x, 7, labels, return_dict=False)[0], model(x, t * 0 + 7, labels).sample)


def test_it_starts_as_dit_does() -> None:
    """adaLN-Zero; Xavier's bounds over a patch as one vector and over q, k and v as one matrix; embeddings 0.02."""
    model: Any = DiTDenoiser(**(TINY | {"num_attention_heads": 8, "attention_head_dim": 16, "num_classes": 200}))
    state, width = model.state_dict(), 128
    zero = ("norm1.linear", "proj_out_1", "proj_out_2")
    block = "transformer.transformer_blocks.1"
    bounds = {
        "transformer.pos_embed.proj": (6 / (4 * 2 * 2 + width)) ** 0.5,
        **{f"{block}.attn1.to_{part}": (6 / (width + 3 * width)) ** 0.5 for part in "qkv"},
        f"{block}.attn1.to_out.0": (6 / (2 * width)) ** 0.5,
        f"{block}.ff.net.0.proj": (6 / (5 * width)) ** 0.5,
        f"{block}.ff.net.2": (6 / (5 * width)) ** 0.5,
    }
    for name, bound in bounds.items():
        weight = state[f"{name}.weight"]
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.04)
    for name in ("time_embedding.mlp.0", "time_embedding.mlp.2", "label_embedding"):
        assert state[f"{name}.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    zeros = {name for name, tensor in state.items() if tensor.abs().max() == 0}
    assert zeros == {name for name in state if name.endswith(".bias") or any(part in name for part in zero)}
    assert model(*inputs()).sample.abs().max() == 0
    tokens = torch.randn(2, 16, width)
    assert model.transformer.transformer_blocks[0](tokens, timestep=torch.randn(2, width)).equal(tokens)


def test_labels_are_what_they_are_also_in_training() -> None:
    """diffusers' own embedding would replace a tenth of them by the null label."""
    model, (x, t, _) = make().train(), inputs()
    assert model.null_label == 5
    rows = [model(x[:1], t[:1], torch.tensor([label])).sample for label in range(6)]
    again = [model(x[:1].expand(40, -1, -1, -1), t[:1], torch.full((40,), label)).sample for label in range(6)]
    for row, repeated in zip(rows, again, strict=True):
        torch.testing.assert_close(repeated, row.expand_as(repeated))
    assert all((rows[i] - rows[j]).abs().max() > 1e-3 for i in range(6) for j in range(i))


def test_every_parameter_learns_and_checkpointing_changes_no_gradient() -> None:
    model, gradients = make().train(), []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
        x, t, _ = inputs(batch=3)
        model(x, t, torch.tensor([0, 1, 2])).sample.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    used = gradients[0].pop("label_embedding.weight")
    assert [row.abs().max() > 0 for row in used] == [True] * 3 + [False] * 3
    assert all(gradient.abs().max() > 0 for name, gradient in gradients[0].items() if "to_k.bias" not in name)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_compiling_reaches_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, compiled = make(), []
    block_class = type(model.transformer.transformer_blocks[0])
    monkeypatch.setattr(block_class, "compile", lambda block, **options: compiled.append((block, options)))
    compile_layers(model)
    assert [block for block, _ in compiled] == list(model.transformer.transformer_blocks)


def test_a_pipeline_draws_with_it_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    scheduler = make_scheduler("ddpm", paper_scheduler().config, learned_sigma=True)
    pipe: Any = IPTV2Pipeline(make(), tiny_vae(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent"}
    first = pipe.fuse()([0, 3], generator=seeded(0, 1), **options).images
    assert first.shape == (2, 4, 8, 8)
    pipe.save_pretrained(tmp_path)
    loaded: Any = IPTV2Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.transformer) is DiTDenoiser
    assert loaded([0, 3], generator=seeded(0, 1), **options).images.equal(first)
    assert pipe(1, height=24, width=24, generator=seeded(0), **options).images.shape == (1, 4, 12, 12)


def test_bad_input_is_refused() -> None:
    model, (x, t, labels) = make(), inputs()
    with pytest.raises(ValueError, match="expected square latents in multiples of 2, got 6x8"):
        model(x[:, :, :6], t, labels)
    with pytest.raises(ValueError, match=r"expected latents \(B, 4, H, W\), got \(3, 2, 8, 8\)"):
        model(x[:, :2], t, labels)
    with pytest.raises(ValueError, match="expected a sample_size in multiples of 2, got 7"):
        DiTDenoiser(sample_size=7)
    with pytest.raises(ValueError, match="num_classes=0"):
        DiTDenoiser(num_classes=0)
