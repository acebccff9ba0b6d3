"""WebDataset tars, written with tarfile alone."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iptv2_diffusion.data.tar_pictures import TarPictures, tar_files


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def red(pictures: TarPictures) -> list[int]:
    return [int(np.asarray(pictures.picture(index))[0, 0, 0]) for index in range(len(pictures))]


def test_samples_of_all_tars_in_the_order_of_names(tmp_path: Path) -> None:
    long = "x" * 150  # needs a header of its own
    write_tar(
        tmp_path / "b.tar",
        {"2.png": png(20), "2.cls": b"1\n", f"deep.er/{long}.png": png(30)} | {f"deep.er/{long}.cls": b"0"},
    )
    write_tar(tmp_path / "a.tar", {"n/1.cls": b"2", "n/1.seg.png": png(9), "n/1.PNG": png(10)}, tarfile.PAX_FORMAT)
    (tmp_path / "readme.txt").write_text("no tar")
    pictures = TarPictures(tmp_path)
    assert [pictures.name(index) for index in range(3)] == ["a.tar/n/1.PNG", "b.tar/2.png", f"b.tar/deep.er/{long}.png"]
    assert [pictures.label(index) for index in range(3)] == [2, 1, 0]
    assert pictures.classes == ("0", "1", "2")
    assert red(pictures) == [10, 20, 30]
    assert red(TarPictures(tmp_path / "b.tar")) == [20, 30]
    assert TarPictures(tmp_path, ["x", "y", "z", "w"]).classes == ("x", "y", "z", "w")
    assert tar_files(tmp_path / "readme.txt") == []


def test_labels_may_come_from_json_and_be_names(tmp_path: Path) -> None:
    members = {"1.png": png(1), "1.json": json.dumps({"label": "dog", "width": 3}).encode()}
    write_tar(
        tmp_path / "a.tar", members | {"2.json": b'{"label": "cat"}', "2.png": png(2), "3.png": png(3), "3.cls": b"dog"}
    )
    pictures = TarPictures(tmp_path)
    assert pictures.classes == ("cat", "dog")
    assert [pictures.label(index) for index in range(3)] == [1, 0, 1]


def test_what_is_no_picture_is_ignored(tmp_path: Path) -> None:
    extra = {".hidden/x": b"", "._1.png": b"", "_info.json": b"{}", "notes": b"", "2.txt": b"", "2.cls": b"7"}
    write_tar(tmp_path / "a.tar", extra | {"1.png": png(1), "1.cls": b"0"})
    assert [TarPictures(tmp_path).name(0), len(TarPictures(tmp_path))] == ["a.tar/1.png", 1]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"1.png": png(1)}, r"a\.tar as an .*expected 1\.cls, or 1\.json with a label"),
        ({"1.png": png(1), "1.json": b'{"class": 3}'}, r"expected 1\.cls, or 1\.json with a label"),
        ({"1.png": png(1), "1.json": b'{"label": 0.5}'}, r"expected 1\.cls, or 1\.json with a label"),
        ({"1.png": png(1), "1.json": b"{"}, r"a\.tar as an uncompressed tar file"),
        ({"1.png": png(1), "1.jpg": b"", "1.cls": b"0"}, "expected one picture in the sample 1, got 2"),
        ({"1.png": png(1), "1.PNG": png(1), "1.cls": b"0"}, r"it holds 1\.PNG twice"),
        ({"1.txt": b""}, "expected pictures .* found none"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=said):
        TarPictures(tmp_path)


def test_damaged_and_compressed_tars_are_refused_by_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1), "1.cls": b"0", "2.png": png(2) * 50, "2.cls": b"0"})
    whole = path.read_bytes()
    for content in (whole[:3000], b"", b"no tar" * 200, gzip.compress(whole)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .*a\.tar as an uncompressed tar file"):
            TarPictures(path)


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"n/1.png": png(1)[:30], "n/1.cls": b"0"})
    with pytest.raises(ValueError, match=r"cannot read a\.tar/n/1\.png as a picture"):
        TarPictures(tmp_path).picture(0)
