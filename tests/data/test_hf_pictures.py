"""Data sets of Hugging Face's `datasets`, saved and read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iptv2_diffusion.data import hf_pictures
from iptv2_diffusion.data.hf_pictures import HFPictures, hf_files

LABELS = (1, 0, 1)
pytestmark = pytest.mark.filterwarnings("ignore:Cannot locate")  # of dill, which `datasets` hashes with


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    module = pytest.importorskip("datasets", reason="needs the extra hf")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures with their metadata; the first is half transparent."""
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    lines = []
    for index, label in enumerate(LABELS):
        name = ("deep/x.png", "1.png", "2.png")[index]
        Image.new("RGBA", (3, 2), (50 * index, 100, 200, 51 if index == 0 else 255)).save(root / name)
        lines.append(json.dumps({"file_name": name, "label": label, "kind": "ab"[label]}))
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def first_pixels(pictures: HFPictures) -> list[list[int]]:
    return [np.asarray(pictures.picture(index))[0, 0].tolist() for index in range(len(pictures))]


def named(datasets: Any, folder: Path) -> Any:
    """The same with class labels that have names."""
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["train"]
    return rows.cast_column("label", datasets.ClassLabel(names=["ant", "bee"])).remove_columns(["kind"])


def write_parquet(rows: Any, file: Path, *, with_path: bool = True) -> None:
    """With the files' bytes inside, as on the hub; `to_parquet` alone leaves pictures where they are."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(exist_ok=True)
    rows.to_parquet(file)
    table = parquet.read_table(file)
    stored = [
        {"bytes": Path(image["path"]).read_bytes(), "path": Path(image["path"]).name if with_path else None}
        for image in table["image"].to_pylist()
    ]
    field = table.schema.field("image")
    parquet.write_table(table.set_column(0, field, arrow.array(stored, field.type)), file)


def test_pictures_beside_their_metadata(datasets: Any, folder: Path) -> None:
    assert hf_files(folder)
    pictures = HFPictures(folder)
    assert len(pictures) == 3
    assert pictures.classes == ("0", "1")
    found = {pictures.name(index): (pictures.label(index), first_pixels(pictures)[index]) for index in range(3)}
    assert found == {
        "deep/x.png": (1, [204, 224, 244]),  # on white
        "1.png": (0, [50, 100, 200]),
        "2.png": (1, [100, 100, 200]),
    }
    assert HFPictures(folder, classes=["c", "d"]).classes == ("c", "d")


@pytest.mark.parametrize("kind", ["one split", "several splits", "parquet"])
def test_saved_data_sets_are_read_the_same(datasets: Any, folder: Path, tmp_path: Path, kind: str) -> None:
    rows, root = named(datasets, folder), tmp_path / "saved"
    reversed_rows = rows.select([2, 1, 0])  # by an index, not in storage
    if kind == "one split":
        reversed_rows.save_to_disk(root)
    elif kind == "several splits":
        datasets.DatasetDict({"train": reversed_rows, "validation": rows.select([0])}).save_to_disk(root)
    else:
        write_parquet(reversed_rows, root / "train-00000-of-00001.parquet")
        write_parquet(rows.select([0]), root / "validation-00000-of-00001.parquet")
    assert hf_files(root)
    pictures, reference = HFPictures(root), HFPictures(folder)
    assert pictures.classes == ("ant", "bee")
    assert first_pixels(pictures) == first_pixels(reference)[::-1]
    names = [[Path(each.name(index)).name for index in range(3)] for each in (pictures, reference)]
    assert names[0] == names[1][::-1]
    assert [pictures.label(i) for i in range(3)] == [reference.label(i) for i in range(3)][::-1]
    if kind != "one split":
        assert len(HFPictures(root, "validation")) == 1
        with pytest.raises(ValueError, match="expected a split of train, validation, got test"):
            HFPictures(root, "test")


def test_pictures_without_a_path_are_named_by_their_row(datasets: Any, folder: Path, tmp_path: Path) -> None:
    write_parquet(named(datasets, folder), tmp_path / "saved/train.parquet", with_path=False)
    pictures = HFPictures(tmp_path / "saved")
    assert [pictures.name(index) for index in range(3)] == [f"train/0000000{index}" for index in range(3)]
    assert first_pixels(pictures) == first_pixels(HFPictures(folder))


def test_other_columns_are_refused(datasets: Any, folder: Path, tmp_path: Path) -> None:
    named(datasets, folder).remove_columns(["label"]).save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(
        ValueError, match="expected one column of images and one of class labels, or 'label', got image"
    ):
        HFPictures(tmp_path / "unlabelled")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hf_pictures, "import_module", absent)
    with pytest.raises(OSError, match=r'pip install "iptv2-diffusion\[hf\]" \(No module named \'datasets\'\)'):
        HFPictures(folder)


def test_other_folders_are_none(tmp_path: Path, emoji_folder: Path) -> None:
    assert not hf_files(emoji_folder)
    assert not hf_files(tmp_path / "absent")
