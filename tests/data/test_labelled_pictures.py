from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iptv2_diffusion.data.image_folder import ImageFolder
from iptv2_diffusion.data.labelled_pictures import FolderPictures, decode_rgb, number_classes


def test_a_folder_is_read_as_image_folder_reads_it(emoji_folder: Path) -> None:
    pictures, reference = FolderPictures(emoji_folder), ImageFolder(emoji_folder)
    assert len(pictures) == len(reference) == 12
    assert pictures.classes == ("images",)
    for index in range(12):
        pixels, label = reference[index]
        assert pictures.label(index) == label
        assert emoji_folder / pictures.name(index) == Path(reference.files[index])
        np.testing.assert_array_equal(np.asarray(pictures.picture(index)).transpose(2, 0, 1), pixels.numpy())


def test_names_are_paths_inside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "root/a dog/deeper/x.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(path)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "root", "root", "root/"):
        assert FolderPictures(root).name(0) == "a dog/deeper/x.png"


def test_bytes_become_rgb_or_an_error_with_their_name(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGBA", (2, 3), (0, 100, 200, 51)).save(path)
    assert decode_rgb(path.read_bytes(), "x").getpixel((0, 0)) == (204, 224, 244)  # on white
    with pytest.raises(ValueError, match=r"cannot read some\.tar/x as a picture"):
        decode_rgb(path.read_bytes()[:40], "some.tar/x")


@pytest.mark.parametrize(
    ("labels", "names", "classes", "ids"),
    [
        ([2, 0, 2], None, ("0", "1", "2"), (2, 0, 2)),
        ([2, 0, 2], ["c", "a", "b", "z"], ("c", "a", "b", "z"), (2, 0, 2)),
        (["cat", "ant", "cat"], None, ("ant", "cat"), (1, 0, 1)),
        (["cat", "ant", "cat"], ["cat", "bee", "ant"], ("cat", "bee", "ant"), (0, 2, 0)),
    ],
)
def test_numbers_are_ids_and_names_get_one(labels: list, names: list | None, classes: tuple, ids: tuple) -> None:
    assert number_classes(labels, names) == (classes, ids)


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([0, 3], ["a", "b", "c"], "expected labels from 0 to 2, got 3"),
        ([0, -1], None, "expected labels from 0 to 0, got -1"),
        ([0, "cat"], None, "all numbers or all names, got 0 and 'cat'"),
        (["cat", "dog"], ["cat"], "expected labels among 1 class names, got 'dog'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list, names: list | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        number_classes(labels, names)
