"""The data sets of the paper's Tables 1 to 5, and those that its models are trained on.

Each is read from its official download or from the re-packed folders of Restormer's code base ({input,target}), whole
or as `iptv2-data prepare` has cut it; Rain13K, made up of parts of other sets, is had re-packed only. The numbers of
pictures are checked. Nothing is downloaded.
"""

from pathlib import Path
from typing import Literal

from iptv2_diffusion.data.dnd import HOME as DND
from iptv2_diffusion.data.dnd import DndPatches
from iptv2_diffusion.data.pairs import JoinedPictures, PairedPictures, PictureList
from iptv2_diffusion.data.set_layouts import Layout, SetSpec, find_pairs, find_pictures, locate
from iptv2_diffusion.data.sidd import HOME as SIDD
from iptv2_diffusion.data.sidd import NoisyBlocks, SiddBlocks
from iptv2_diffusion.data.tiles import INDEX, open_tiles

GOPRO = "https://seungjunnah.github.io/Datasets/gopro"
HIDE = "https://github.com/joanshen0508/HA_deblur"
DPDD = "https://github.com/Abdullah-Abuolaim/defocus-deblurring-dual-pixel"
RAIN = "https://github.com/swz30/Restormer/tree/main/Deraining"
DNCNN = "https://github.com/cszn/DnCNN/tree/master/testsets"


def _repacked(count: int | None, *below: str, suffix: str = "") -> Layout:
    """Files of equal names in two folders."""
    return Layout(degraded=(f"input{suffix}/*",), clean=f"target{suffix}/*", count=count, below=("", *below))


def _gopro(part: str, count: int, *more: Layout) -> SetSpec:
    """`blur_gamma`, in the same download, is another set: with a gamma correction. The tables are about `blur`."""
    official = Layout(
        degraded=(f"{part}/*/blur/*",),
        clean=f"{part}/*/sharp/*",
        count=count,
        below=("", "GOPRO_Large"),
        key=r"([^/]+)/(?:blur|sharp)(/[^/]+)$",
    )
    layouts = (official, _repacked(count, f"{part}/GoPro", f"GoPro/{part}"), *more)
    return SetSpec(title=f"GoPro ({part})", home=GOPRO, layouts=layouts, overlap=256)


def _dpdd(part: str, count: int, views: str) -> SetSpec:
    """`views`: C, the picture as the camera gives it, or LR, what the two halves of its pixels see."""
    official = Layout(
        degraded=tuple(f"{part}_{view.lower()}/source/*" for view in views),
        clean=f"{part}_c/target/*",
        count=count,
        below=("", "dd_dp_dataset_canon"),
        name_lists=f"file_names/{part}",
    )
    repacked = Layout(
        degraded=tuple(f"input{view}/*" for view in views),
        clean="target/*",
        count=count,
        below=("", f"{part}/DPDD", f"DPDD/{part}"),
        name_lists=f"file_names/{part}",
    )
    return SetSpec(
        title=f"DPDD ({part})", home=DPDD, layouts=(official, repacked), bits=8 if views == "C" else None, overlap=308
    )


def _rain(title: str, count: int, part: str = "test", *first: Layout, last: Layout | None = None) -> SetSpec:
    layouts = (*first, _repacked(count, f"{part}/{title}", title), *([last] if last else []))
    return SetSpec(title=title, home=RAIN, layouts=layouts)


def _rain100(title: str) -> SetSpec:
    """Its authors' download has rainy/rain-001.png and, one folder up or beside, norain-001.png."""
    key, below = r"(?:no)?rain-(\d+)$", ("", title)
    official = [
        Layout(degraded=(degraded,), clean=clean, count=100, below=below, key=key)
        for degraded, clean in (("rainy/rain-*", "norain-*"), ("rain/rain-*", "norain/norain-*"))
    ]
    return _rain(title, 100, "test", *official)


def _joined(count: int, degraded: Literal["left", "right"], *below: str) -> Layout:
    return Layout(clean="*", count=count, below=(*below, ""), joined=degraded)


def _photographs(title: str, count: int, home: str, *patterns: str) -> SetSpec:
    """Clean pictures in one folder: of the set's name, in `test`, or the named one itself."""
    names = (*patterns, f"test/{title}/*", f"{title}/*", "*")
    return SetSpec(title=title, home=home, layouts=tuple(Layout(clean=name, count=count) for name in names))


RESTORATION_SETS: dict[str, SetSpec] = {
    # Gaussian denoising
    "cbsd68": _photographs("CBSD68", 68, "https://github.com/clausmichele/CBSD68-dataset", "CBSD68/original_png/*"),
    "kodak24": _photographs("Kodak", 24, "https://r0k.us/graphics/kodak", "test/Kodak24/*", "Kodak24/*"),
    "mcmaster": _photographs("McMaster", 18, "https://www4.comp.polyu.edu.hk/~cslzhang/CDM_Dataset.htm", "McM/*"),
    "urban100": _photographs(
        "Urban100",
        100,
        "https://github.com/jbhuang0604/SelfExSR",
        *(f"{folder}image_SRF_2/*_HR.*" for folder in ("data/Urban100/", "Urban100/", "")),
        "*_SRF_2_HR.*",
    ),
    "set12": _photographs("Set12", 12, DNCNN),
    "bsd68": _photographs("BSD68", 68, DNCNN),
    "div2k": _photographs("DIV2K", 800, "https://data.vision.ee.ethz.ch/cvl/DIV2K", "DIV2K_train_HR/*"),
    "flickr2k": _photographs(
        "Flickr2K", 2650, "https://github.com/limbee/NTIRE2017", "Flickr2K/Flickr2K_HR/*", "Flickr2K_HR/*"
    ),
    "wed": _photographs(
        "WaterlooED",
        4744,
        "https://ece.uwaterloo.ca/~k29ma/exploration",
        "exploration_database_and_code/pristine_images/*",
        "pristine_images/*",
    ),
    "bsd400": SetSpec(
        title="BSD400 (BSDS500's train and test parts)",
        home="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
        layouts=(
            *(
                Layout(clean=clean, count=400, key=r"/(train|test)(/[^/]+)$")
                for clean in ("BSDS500/data/images/*/*", "*/*")
            ),
            Layout(clean="*", count=400, below=("BSD400", "")),
        ),
    ),
    "dfwb": SetSpec(
        title="DFWB",
        home="the pages of its parts",
        layouts=(Layout(clean="*", count=None, below=("train/DFWB", "DFWB")),),
        parts=("div2k", "flickr2k", "wed", "bsd400"),
    ),
    # Real denoising
    "sidd-train": SetSpec(
        title="SIDD-Medium sRGB",
        home=SIDD,
        overlap=128,
        layouts=(
            Layout(
                degraded=("Data/*/*_NOISY_SRGB_*",),
                clean="Data/*/*_GT_SRGB_*",
                count=320,
                below=("", "SIDD_Medium_Srgb"),
                key=r"(\d+_\d+)_[^/]*/\d+_(?:NOISY|GT)_SRGB(_\d+)$",  # instance, scene, shot
            ),
            _repacked(320, "train/SIDD"),
            _repacked(None, "train/SIDD", suffix="_crops"),
        ),
    ),
    "sidd-val": SetSpec(title="SIDD validation blocks", home=SIDD, reader=SiddBlocks),
    "sidd-bench": SetSpec(title="SIDD benchmark blocks", home=SIDD, reader=NoisyBlocks),
    "dnd": SetSpec(title="DND", home=DND, reader=DndPatches),
    "polyu": SetSpec(  # 100 regions of 512x512; whoever has some of them only may score these
        title="PolyU",
        home="https://github.com/csjunxu/PolyU-Real-World-Noisy-Images-Dataset",
        layouts=(
            Layout(
                degraded=("*_real.*",),
                clean="*_mean.*",
                count=None,
                below=("", "CroppedImages", "PolyU-Real-World-Noisy-Images-Dataset/CroppedImages"),
                key=r"([^/]+)_(?:real|mean)$",
            ),
            _repacked(None, "test/PolyU", "PolyU"),
        ),
    ),
    # Motion deblurring
    "gopro-train": _gopro("train", 2103, _repacked(16824, "train/GoPro", suffix="_crops")),
    "gopro-test": _gopro("test", 1111),
    "hide": SetSpec(
        title="HIDE (test)",
        home=HIDE,
        layouts=(
            Layout(
                degraded=("test/test-*/*",),
                clean="GT/*",
                count=2025,
                below=("", "HIDE_dataset", "HIDE"),
                spare_clean=True,
            ),
            _repacked(2025, "test/HIDE", "HIDE"),
        ),
    ),
    # Defocus deblurring
    **{f"dpdd-{part}": _dpdd(part, count, "C") for part, count in (("train", 350), ("val", 74), ("test", 76))},
    **{f"dpdd-dual-{part}": _dpdd(part, count, "LR") for part, count in (("train", 350), ("val", 74), ("test", 76))},
    # Deraining
    "rain13k": _rain("Rain13K", 13712, "train"),
    "rain100h": _rain100("Rain100H"),
    "rain100l": _rain100("Rain100L"),
    # Both of their authors join the pictures of a pair, ID-CGAN's with the rain on the right, DID-MDN's on the left.
    "test100": _rain("Test100", 100, last=_joined(100, "right", "rain/test_syn", "test_syn")),
    "test1200": _rain("Test1200", 1200, last=_joined(1200, "left", "DID-MDN-test", "DID-MDN-datasets/DID-MDN-test")),
    # Rain14000's: a clean picture has fourteen rainy ones.
    "test2800": _rain(
        "Test2800",
        2800,
        "test",
        Layout(
            degraded=("rainy_image/*",),
            clean="ground_truth/*",
            count=2800,
            below=("", "testing", "rainy_image_dataset/testing", "Test2800"),
            shared_clean=r"^(.+)_\d+$",
            spare_clean=True,
        ),
    ),
}


def open_set(
    name: str, root: str | Path, *, gray: bool = False, count: int | None = None
) -> PairedPictures | JoinedPictures | PictureList | SiddBlocks | NoisyBlocks | DndPatches:
    """A set by its name in `RESTORATION_SETS`, or the tiles that were cut from it.

    `count` replaces the published number of pictures (of each part, where there are parts). ValueError for an unknown
    name and for an incomplete set, FileNotFoundError where there is nothing of it; both say where it is to be had.
    """
    root, spec = Path(root), spec_of(name)
    if (root / INDEX).is_file():
        return open_tiles(root, gray=gray, bits=spec.bits)
    if spec.reader is not None:
        return spec.reader(root)
    found = locate(spec, root)
    if found is not None and found.layout.joined is not None:
        return JoinedPictures(find_pictures(spec, root, count), degraded=found.layout.joined, gray=gray)
    if spec.parts and found is None:
        files = [file for part in spec.parts for file in find_pictures(spec_of(part), root, count)]
        return PictureList(files, gray=gray, root=root)
    if spec.layouts[0].degraded:
        return PairedPictures(find_pairs(spec, root, count), gray=gray, bits=spec.bits)
    return PictureList(find_pictures(spec, root, count), gray=gray, root=root)


def spec_of(name: str) -> SetSpec:
    if name not in RESTORATION_SETS:
        raise ValueError(f"expected a data set of {', '.join(RESTORATION_SETS)}; got {name!r}")
    return RESTORATION_SETS[name]
