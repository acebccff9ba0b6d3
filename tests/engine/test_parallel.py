"""Mixed precision, and the kinds of parallelism that accelerate's configurations ask for."""

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from denoising import DenoisingTask
from torch.utils._python_dispatch import TorchDispatchMode
from toy import ToyTask, toy_config

from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.engine import fit, parallel
from iptv2_diffusion.layers.norm import BiasFreeNorm

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
CPU = torch.device("cpu")
EXPECTED = {
    "single_gpu": ("NO", 1, 1),
    "8_gpu": ("MULTI_GPU", 1, 8),
    "2_nodes_x_8": ("MULTI_GPU", 2, 16),
    "fsdp": ("FSDP", 1, 8),
    "deepspeed_zero2": ("DEEPSPEED", 1, 8),
}


class Dtypes(TorchDispatchMode):
    """Which dtypes each operator takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple) else (result,)
        tensors = [value for value in (*args, *results) if isinstance(value, torch.Tensor)]
        self.seen[func.overloadpacket.__name__] |= {tensor.dtype for tensor in tensors}
        return result


def test_bf16_keeps_norms_softmax_loss_and_gradients_in_float32():
    task = DenoisingTask()
    parallel.autocast_forward(task.model, CPU)
    batch = torch.utils.data.default_collate([task.sample(position) for position in range(2)])
    with Dtypes() as dtypes:
        loss, _ = task.loss(task.model, batch)
        loss.mean().backward()
    single = {torch.float32}
    for name in ("native_layer_norm", "native_layer_norm_backward", "_softmax", "rsqrt", "_softmax_backward_data"):
        assert dtypes.seen[name] == single, name
    assert dtypes.seen["convolution"] == dtypes.seen["addmm"] == {torch.bfloat16}
    assert task.model(batch["z"], batch["t"], batch["label"]).sample.dtype == loss.dtype == torch.float32
    assert {parameter.dtype for parameter in task.model.parameters()} == single
    assert {p.grad.dtype for p in task.model.parameters() if p.grad is not None} == single


def test_bf16_keeps_the_statistics_of_the_bias_free_norm_in_float32():
    norm, x = BiasFreeNorm(6), torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    torch.testing.assert_close(found, norm(x.float()), rtol=0, atol=0)


def test_bf16_stays_near_float32():
    losses = []
    for half in (False, True):
        task = DenoisingTask()
        if half:
            parallel.autocast_forward(task.model, CPU)
        batch = torch.utils.data.default_collate([task.sample(position) for position in range(4)])
        losses.append(task.loss(task.model, batch)[0])
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, rtol=2e-2, atol=0)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_shipped_configurations_are_what_they_are_called(name):
    config: Any = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == EXPECTED[name]
    assert config.mixed_precision == "no"  # the loop's own autocast decides
    if config.distributed_type.value == "FSDP":
        assert (config.fsdp_config["fsdp_version"], config.fsdp_config["fsdp_state_dict_type"]) == (
            2,
            "FULL_STATE_DICT",
        )
        assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] in IPTV2Transformer2DModel._no_split_modules
    if config.distributed_type.value == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == 2


def test_every_shipped_configuration_is_tested():
    assert {path.stem for path in CONFIGS.iterdir()} == set(EXPECTED)


def test_other_kinds_of_sharding_are_refused(tmp_path, monkeypatch):
    class Fake:
        distributed_type: Any
        state: Any

        def __init__(self, **options: Any) -> None:
            pass

    monkeypatch.setattr(parallel, "Accelerator", Fake)
    full, config = SimpleNamespace(name="FULL_STATE_DICT"), toy_config(tmp_path, clip=0.5)
    for version, kind in ((1, full), (2, SimpleNamespace(name="SHARDED_STATE_DICT"))):
        Fake.distributed_type = parallel.DistributedType.FSDP
        Fake.state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=version, state_dict_type=kind))
        with pytest.raises(
            ValueError, match=rf"expected fsdp_version 2 and FULL_STATE_DICT .*, got \({version}, '{kind.name}'\)"
        ):
            parallel.make_accelerator(config)
    plugin = SimpleNamespace(zero_stage=3, deepspeed_config={})
    Fake.distributed_type, Fake.state = parallel.DistributedType.DEEPSPEED, SimpleNamespace(deepspeed_plugin=plugin)
    with pytest.raises(ValueError, match=r"expected zero_stage 1 or 2 .*, got 3"):
        parallel.make_accelerator(config)
    plugin.zero_stage, plugin.deepspeed_config = 2, {"gradient_accumulation_steps": 4}
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps to be 1, got 4: --micro-batch decides$"):
        parallel.make_accelerator(config)
    plugin.deepspeed_config = {}
    parallel.make_accelerator(config)
    assert plugin.deepspeed_config == {"gradient_clipping": 0.5, "train_micro_batch_size_per_gpu": 1}


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_muon_is_refused_where_matrices_are_in_pieces(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(
        parallel, "Accelerator", lambda **_: SimpleNamespace(distributed_type=parallel.DistributedType[kind])
    )
    with pytest.raises(ValueError, match=rf"^optimizer: expected adamw with {kind}; muon needs whole matrices$"):
        parallel.make_accelerator(toy_config(tmp_path, optimizer="muon"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MIXED_PRECISION", "fp16", "mixed_precision to be no, got fp16: --precision decides, and is no"),
        ("MIXED_PRECISION", "bf16", "mixed_precision to be no, got bf16: --precision decides, and is no"),
        ("GRADIENT_ACCUMULATION_STEPS", "2", "gradient_accumulation_steps to be 1, got 2: --micro-batch decides"),
    ],
)
def test_a_launcher_that_wants_what_the_loop_does_is_refused(tmp_path, monkeypatch, name, value, message):
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ValueError, match=f"^expected accelerate's {message}$"):
        fit(ToyTask(), toy_config(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_a_launcher_may_say_what_the_flags_say(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert parallel.make_accelerator(toy_config(tmp_path, precision="bf16")).mixed_precision == "no"
