"""Shards of latent moments: what encoded pictures look like on disk.

A folder holds `shard-00000.safetensors`, ... and `index.json`, written last: the header and a list of the shards. All
shards but the last hold `shard_size` pictures:

    moments (n, views, 2, C, h, w)  mean and standard deviation of the scaled latents; views: the picture, its mirror image
    labels  (n,) int64
    names   (bytes,) uint8          file names in UTF-8, separated by zero bytes

In float16 means move by about 2e-4 of the latents' spread, a twentieth of the posterior's deviation for the bundled VAE
(`benchmarks/latents.py`); where a posterior is narrower still, float32 keeps it at twice the size.

Each file appears whole or not at all and is a function of header and pictures alone. Its metadata holds the hash of the
header, by which an interrupted run knows its own, and that of its tensors.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from iptv2_diffusion.data.image_writers import write_bytes

FORMAT, VERSION = "iptv2-latents", 1
INDEX, UNFINISHED = "index.json", ".header.json"
METADATA = "iptv2"  # one key: safetensors does not keep the order of several
FREE = {"vae", "hold_out", "hashed_hold_out"}  # of the header, without a part in what the shards hold
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class LatentHeader:
    vae: str  # hub id, folder or "bundled"
    vae_sha256: str  # of its encoder
    scale: float
    shift: float
    crop: str
    image_size: int  # pixels a side
    shape: tuple[int, ...]  # (C, h, w)
    flip: bool  # mirror images are there, too
    dtype: str  # of the moments
    classes: tuple[str, ...]  # names or folders; the index is the class id
    count: int  # pictures
    content: str  # hash of names and labels, in order
    shard_size: int  # pictures
    hold_out: int | None  # every such picture is kept for measuring; None: no picture is
    hashed_hold_out: int | None = None  # what the shards' hashes have in its place: of older ones that of their time

    @property
    def views(self) -> int:
        return 2 if self.flip else 1

    @property
    def shards(self) -> int:
        return -(-self.count // self.shard_size)

    def rows(self, shard: int) -> range:
        """The pictures of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    @property
    def sha256(self) -> str:
        """Of all that decides what the shards hold: the same VAE may lie elsewhere."""
        values = asdict(self) | {"vae": None, "hold_out": self.hashed_hold_out}
        del values["hashed_hold_out"]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def differences(self, other: "LatentHeader") -> list[str]:
        return [
            f"{field.name} is {_short(getattr(self, field.name))}, not {_short(getattr(other, field.name))}"
            for field in fields(self)
            if field.name not in FREE and getattr(self, field.name) != getattr(other, field.name)
        ]


def shard_path(root: Path, shard: int) -> Path:
    return root / f"shard-{shard:05d}.safetensors"


def content_hash(labelled_names: Iterable[tuple[int, str]]) -> str:
    digest = hashlib.sha256()
    for label, name in labelled_names:
        digest.update(f"{label} {name}\0".encode())
    return digest.hexdigest()


def is_latent_folder(root: Path) -> bool:
    """Whether `root` holds shards, finished or not."""
    try:
        return (root / UNFINISHED).is_file() or json.loads((root / INDEX).read_text("utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def begin(root: Path, header: LatentHeader) -> None:
    """Makes the folder, or sees to it that what it holds belongs to `header`; FileExistsError otherwise."""
    found = _begun(root)
    if found is not None:
        if differences := found.differences(header):
            raise FileExistsError(f"{root} holds latents of another configuration: {'; '.join(differences)}")
        return
    if root.exists() and (not root.is_dir() or any(path.suffix != ".unfinished" for path in root.iterdir())):
        raise FileExistsError(f"expected a new or empty folder for latents, {root} already holds something")
    root.mkdir(parents=True, exist_ok=True)
    write_bytes(root / UNFINISHED, _json(_described(header)))


def continued(root: Path, header: LatentHeader) -> LatentHeader:
    """The header with the hash of the shards that may be there: another share is held out of them, and nothing else."""
    found = _begun(root)
    return header if found is None else replace(header, hashed_hold_out=found.hashed_hold_out)


def unfinished_shards(root: Path, header: LatentHeader) -> list[int]:
    return [number for number in range(header.shards) if _hash_of_shard(root, header, number) is None]


def write_shard(root: Path, header: LatentHeader, shard: int, tensors: Mapping[str, torch.Tensor]) -> None:
    metadata = json.dumps({"header": header.sha256, "tensors": tensors_hash(tensors)})
    write_bytes(shard_path(root, shard), save(dict(tensors), {METADATA: metadata}), overwrite=True)


def finish(root: Path, header: LatentHeader) -> None:
    """Writes the index, once all shards are there."""
    hashes = [_hash_of_shard(root, header, number) for number in range(header.shards)]
    assert None not in hashes
    shards = [
        {"file": shard_path(root, number).name, "count": len(header.rows(number)), "sha256": sha256}
        for number, sha256 in enumerate(hashes)
    ]
    write_bytes(root / INDEX, _json(_described(header) | {"shards": shards}), overwrite=True)
    (root / UNFINISHED).unlink(missing_ok=True)


def read_index(root: Path) -> tuple[LatentHeader, list[str]]:
    """The header, and the hash of each shard's tensors; ValueError where `root` holds no finished shards."""
    if not (root / INDEX).is_file() and (root / UNFINISHED).is_file():
        raise ValueError(f"the latents in {root} are unfinished: the command that began them goes on with them")
    header = _header(root / INDEX)
    try:
        shards = json.loads((root / INDEX).read_text("utf-8"))["shards"]
        hashes = [shard["sha256"] for shard in shards]
        fits = [shard["count"] for shard in shards] == [len(header.rows(n)) for n in range(header.shards)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected a list of shards in {root / INDEX}, its entry {error} is missing") from None
    if not fits:
        raise ValueError(f"expected {header.shards} shards of {header.count} pictures in {root / INDEX}")
    return header, hashes


def shard_metadata(path: Path) -> dict[str, str]:
    """The hashes "header" and "tensors"; ValueError where the file is missing, cut short or none of these."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()[METADATA])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read {path} as a shard of latents: {error}") from error


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def pack_names(names: Iterable[str]) -> torch.Tensor:
    return torch.frombuffer(bytearray("\0".join(names).encode()), dtype=torch.uint8)


def unpack_names(packed: torch.Tensor) -> list[str]:
    return packed.numpy().tobytes().decode().split("\0")


def _hash_of_shard(root: Path, header: LatentHeader, shard: int) -> str | None:
    """None where the shard is not there, or not whole."""
    try:
        metadata = shard_metadata(shard_path(root, shard))
    except ValueError:
        return None
    return metadata["tensors"] if metadata["header"] == header.sha256 else None


def _described(header: LatentHeader) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION} | asdict(header)


def _begun(root: Path) -> LatentHeader | None:
    found = next((root / name for name in (INDEX, UNFINISHED) if (root / name).is_file()), None)
    return None if found is None else _header(found)


def _header(path: Path) -> LatentHeader:
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT or values["version"] != VERSION:
            raise ValueError(f"its format is {values['format']}, version {values['version']}")
        values |= {name: tuple(values[name]) for name in ("shape", "classes")}
        values = {"hashed_hold_out": values["hold_out"]} | values
        return LatentHeader(**{field.name: values[field.name] for field in fields(LatentHeader)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected latents ({FORMAT}, version {VERSION}) described in {path}: {error}") from None


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _short(value: Any) -> str:
    return f"{len(value)} names" if isinstance(value, tuple) and len(value) > 3 else str(value)
