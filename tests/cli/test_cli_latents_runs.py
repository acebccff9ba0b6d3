"""`iptv2-data latents` interrupted, resumed and shared by processes: the files stay the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
from encoding import contents, encode, flags_of

from iptv2_diffusion import LatentCodec
from iptv2_diffusion.cli import latents
from iptv2_diffusion.cli.data import LatentsConfig
from iptv2_diffusion.data.latent_format import begin, finish
from iptv2_diffusion.data.latent_shards import check_latents

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_goes_on(
    shard_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    encode(tmp_path / "whole", shard_settings)
    write, written = latents.write_shard, []

    def interrupted(root: Path, header: Any, shard: int, tensors: Any) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(shard)
        write(root, header, shard, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path / "parts", shard_settings)
    with pytest.raises(ValueError, match="are unfinished"):
        check_latents(tmp_path / "parts")
    monkeypatch.setattr(latents, "write_shard", lambda *a: (written.append(a[2]), write(*a)))
    encode(tmp_path / "parts", shard_settings)
    assert written == [0, 1, 2]  # each once
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_damaged_shard_that_was_removed_is_made_again(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    output = encode(tmp_path / "latents", shard_settings)
    before = contents(output)
    (output / "shard-00001.safetensors").unlink()
    encode(output, shard_settings)
    assert contents(output) == before


def test_shares_of_processes_make_the_same_files(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    encode(tmp_path / "one", shard_settings)
    config = LatentsConfig(output=tmp_path / "two", **shard_settings)
    pictures, codec = latents.open_pictures(config), LatentCodec.from_pretrained(config.vae)
    header = latents.make_header(config, pictures, codec)
    begin(config.output, header)
    for share in ([1], [0, 2]):
        latents.encode_shards(config, pictures, codec, header, share)
    finish(config.output, header)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_worker_processes_make_the_same_files(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    encode(tmp_path / "none", shard_settings)
    encode(tmp_path / "two", shard_settings | {"workers": 2})
    assert contents(tmp_path / "none") == contents(tmp_path / "two")


@pytest.mark.slow
def test_a_killed_run_goes_on(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    small = shard_settings | {"shard_size": 1, "batch_size": 1}
    encode(tmp_path / "whole", small)
    words = [*map(str, flags_of(small)), "--output", str(tmp_path / "parts")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "iptv2_diffusion.cli.data", "latents", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while process.poll() is None and not (tmp_path / "parts/shard-00001.safetensors").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "parts/index.json").exists()
    encode(tmp_path / "parts", small)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_make_the_files_of_one(shard_settings: dict[str, Any], tmp_path: Path) -> None:
    flags = ("latents", *flags_of(shard_settings), "--output", tmp_path / "two")
    said = forked.run(tmp_path / "said", "iptv2_diffusion.cli.data", *flags, ranks=2)
    assert [part.out.count("12 pictures of 2 classes are in") for part in said] == [1, 0]
    assert ["7/7" in part.err for part in said] == [True, False]  # first and third shard; the other process is quiet
    encode(tmp_path / "one", shard_settings)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
