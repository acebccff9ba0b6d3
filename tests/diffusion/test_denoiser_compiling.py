"""Gradient checkpointing, torch.compile and torch.export of the latent denoiser give the numbers of eager mode."""

from typing import Any

import pytest
import torch
from tiny_denoiser import CLOSE, inputs, make, run

from iptv2_diffusion.backbone.block import TransformerLayer
from iptv2_diffusion.backbone.compiling import compile_layers


def test_gradient_checkpointing_changes_nothing() -> None:
    model, args = make().train(), inputs(10, 12)
    results = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        model.zero_grad()
        out = run(model, *args)
        out.square().sum().backward()
        results.append({"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()})
    assert model.is_gradient_checkpointing
    assert all(value is not None for value in results[0].values())
    torch.testing.assert_close(results[1], results[0], **CLOSE)


def test_gradient_checkpointing_recomputes_every_layer() -> None:
    model = make(refinement=1).train()
    calls = []
    layers = [module for module in model.modules() if isinstance(module, TransformerLayer)]
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    model.enable_gradient_checkpointing()
    run(model, *inputs()).sum().backward()
    assert sorted(calls) == sorted(2 * list(range(7)))


SHALLOW: dict[str, Any] = {"layers": (0, 2)}  # still both attentions, and two levels: tracing takes seconds a layer


def compiled_equals_eager(backend: str, size: tuple[int, int], **fields: Any) -> None:
    """In float64, where sums in another order do not show, and at timestep 0: sinusoids stay float32, and compiled
    ones differ in the last bits, except there."""
    torch.compiler.reset()
    model, (x, _, labels) = make(**(SHALLOW | fields)).double(), inputs(*size)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results = []
    for form in (model, compiled):
        model.zero_grad()
        out = run(form, x.double(), torch.zeros(len(x)), labels)
        out.square().sum().backward()
        results.append({"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


def test_compiles_as_one_graph() -> None:
    compiled_equals_eager("aot_eager", (10, 12))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"parallel": True, "shift": "cyclic"}], ids=str)
def test_compiles_with_inductor(fields: dict[str, Any]) -> None:
    compiled_equals_eager("inductor", (16, 16), **fields)


@pytest.mark.slow
@torch.no_grad()
def test_layers_compile_one_by_one() -> None:
    """diffusers' compile_repeated_blocks."""
    torch.compiler.reset()
    model, args = make(**SHALLOW), inputs()
    expected = run(model, *args)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(run(model, *args), expected, **CLOSE)


@pytest.mark.slow
@torch.no_grad()
def test_layers_compile_one_by_one_without_falling_back() -> None:
    """More kinds of layers than torch.compile accepts by default; every layer runs compiled."""
    torch.compiler.reset()
    model, args = make(layers=(2, 2, 2, 2), heads=(1, 1, 1, 1)), inputs()
    expected = run(model, *args)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_layers(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(run(model, *args), expected, **CLOSE)
    kinds = 2 * 5  # both attentions; four widths, and the top decoder's on maps of another size
    assert len(graphs) == kinds


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports(fused: bool) -> None:
    model, (x, t, labels) = make(**(SHALLOW | {"fused": fused})), inputs(10, 12)
    program = torch.export.export(model, (x, t, labels), {"return_dict": False})
    (out,) = program.module()(x, t, labels, return_dict=False)
    torch.testing.assert_close(out, run(model, x, t, labels), **CLOSE)
