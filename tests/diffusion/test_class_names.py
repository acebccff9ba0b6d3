import pytest

from iptv2_diffusion.diffusion.class_names import find_class, imagenet_id2label, names_of

NAMES = names_of(
    {
        0: "tench, Tinca tinca",
        1: "crane",
        2: "crane",
        3: "projectile, missile",
        4: "missile",
        5: "tub, vat",
        6: "Bath, tub",
    }
)


@pytest.mark.parametrize(
    ("name", "index"),
    [("tench", 0), ("Tinca tinca", 0), ("TENCH, tinca  Tinca", 0), (" tench ", 0), ("projectile", 3), ("bath", 6)],
)
def test_every_part_of_a_label_finds_its_class(name: str, index: int) -> None:
    assert find_class(name, NAMES) == index


def test_a_whole_label_wins_over_a_part_of_another() -> None:
    assert find_class("missile", NAMES) == 4


@pytest.mark.parametrize(("name", "ids"), [("crane", "1, 2"), ("tub", "5, 6")])
def test_ambiguous_names_are_refused_with_their_ids(name: str, ids: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is ambiguous: it names classes {ids}; pass an id"):
        find_class(name, NAMES)


def test_unknown_names_suggest_the_close_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown class name 'tensh'; did you mean tench"):
        find_class("tensh", NAMES)
    with pytest.raises(ValueError, match="see the `labels`"):
        find_class("qqqqqq", NAMES)
    with pytest.raises(ValueError, match="has no class names, pass ids"):
        find_class("tench", {})


def test_imagenet_is_in_image_folder_order() -> None:
    """Sorted synsets; the numbering of the challenge's development kit is another."""
    labels = imagenet_id2label()
    assert list(labels) == list(range(1000))
    assert labels[0] == "tench, Tinca tinca"
    assert labels[207] == "golden retriever"
    assert labels[999] == "toilet tissue, toilet paper, bathroom tissue"
    names = names_of(labels)
    assert [find_class(name, names) for name in ("great white shark", "goldfish", "missile")] == [2, 1, 657]
    with pytest.raises(ValueError, match="classes 134, 517"):
        find_class("crane", names)
