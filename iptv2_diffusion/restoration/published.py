"""What the paper prints for each benchmark (Tables 1, 2, 4, 5, 11): IPT-V2's models and the best of the others.

Our copy of the paper lacks the body of Table 3; its one figure here is from the text of Section 4.2. Where the paper
disagrees with itself the table is followed: Small has 30.09 dB on Urban100 at sigma 50 in Table 1, 30.11 in the text.
"""

from collections.abc import Iterator, Sequence

Figures = dict[str, float]  # "psnr", or "indoor/psnr" for a part of the pictures

SMALL, BASE, BASE_PLUS = "Small", "Base", "Base+"

NOTES = {3: "Table 3: our copy of the paper lacks its body; 33.92 is from the text of Section 4.2."}

GAUSSIAN = [
    f"{name}-{sigma}"
    for name in ("cbsd68", "kodak24", "mcmaster", "urban100", "set12", "bsd68", "urban100-gray")
    for sigma in (15, 25, 50)
]
# A row of Table 1 has the three noise levels of each set; Base+ is in Table 11, which has sigma 50 only.
TABLE_1 = {
    "DRUNet": "34.30 31.69 28.51 35.31 32.89 29.86 35.40 33.14 30.08 34.81 32.60 29.61 "
    "33.25 30.94 27.90 31.91 29.48 26.59 33.44 31.11 27.96",
    "SwinIR": "34.42 31.78 28.56 35.34 32.89 29.79 35.61 33.20 30.22 35.13 32.90 29.82 "
    "33.36 31.01 27.91 31.97 29.50 26.58 33.70 31.30 27.98",
    "Restormer": "34.40 31.79 28.60 35.47 33.04 30.01 35.61 33.34 30.30 35.13 32.96 30.02 "
    "33.42 31.08 28.00 31.96 29.52 26.62 33.79 31.46 28.29",
    "ART": "34.46 31.84 28.63 35.39 32.95 29.87 35.68 33.41 30.31 35.29 33.14 30.19 - - - - - - - - -",
    "GRL-B": "34.45 31.82 28.62 35.43 33.02 29.93 35.73 33.46 30.36 35.54 33.35 30.46 "
    "33.47 31.12 28.03 32.00 29.54 26.60 34.09 31.80 28.59",
    SMALL: "34.41 31.79 28.63 35.34 32.92 29.88 35.57 33.32 30.28 35.13 32.98 30.09 "
    "33.38 31.05 27.97 31.98 29.53 26.63 33.81 31.51 28.45",
    BASE: "34.46 31.84 28.65 35.44 33.03 29.97 35.71 33.47 30.42 35.39 33.30 30.53 "
    "33.44 31.10 28.01 32.00 29.55 26.65 34.04 31.84 28.83",
    BASE_PLUS: "- - 28.65 - - 30.00 - - 30.44 - - 30.60 - - 28.03 - - 26.65 - - 28.90",
}
TABLE_2 = {  # SIDD, DND: PSNR, SSIM
    "MIRNet": "39.72 0.959 39.88 0.956",
    "Uformer": "39.77 0.959 39.96 0.956",
    "NAFNet-32": "39.97 0.960 - -",
    "Restormer": "40.02 0.960 40.03 0.956",
    SMALL: "39.98 0.960 40.04 0.956",
    BASE: "40.05 0.961 40.09 0.957",
}
TABLE_3 = {BASE: "33.92"}
DEFOCUS = [f"{part}{score}" for part in ("indoor/", "outdoor/", "") for score in ("psnr", "ssim", "mae", "lpips")]
TABLE_4_SINGLE = {
    "IFAN": "28.11 0.861 0.026 0.179 22.76 0.720 0.052 0.254 25.37 0.789 0.039 0.217",
    "Restormer": "28.87 0.882 0.025 0.145 23.24 0.743 0.050 0.209 25.98 0.811 0.038 0.178",
    "GRL-B": "29.06 0.886 0.024 0.139 23.45 0.761 0.049 0.196 26.18 0.822 0.037 0.168",
    SMALL: "28.72 0.879 0.025 0.152 23.07 0.748 0.051 0.219 25.82 0.812 0.038 0.187",
    BASE: "28.88 0.885 0.024 0.141 23.53 0.761 0.049 0.194 26.13 0.822 0.037 0.168",
}
TABLE_4_DUAL = {
    "IFAN": "28.66 0.868 0.025 0.172 23.46 0.743 0.049 0.240 25.99 0.804 0.037 0.207",
    "Restormer": "29.48 0.895 0.023 0.134 23.97 0.773 0.047 0.175 26.66 0.833 0.035 0.155",
    "GRL-B": "29.83 0.903 0.022 0.114 24.39 0.795 0.045 0.150 27.04 0.847 0.034 0.133",
    SMALL: "29.43 0.891 0.023 0.133 24.23 0.787 0.046 0.175 26.76 0.838 0.035 0.155",
    BASE: "29.90 0.901 0.022 0.122 24.62 0.799 0.044 0.157 27.19 0.849 0.034 0.140",
}
TABLE_5 = {  # Rain100H, Rain100L, Test2800: PSNR, SSIM
    "MSPFN": "30.41 0.890 36.40 0.965 33.64 0.938",
    "SPAIR": "30.95 0.892 36.93 0.969 33.34 0.936",
    "Restormer": "31.46 0.904 38.99 0.978 34.18 0.944",
    SMALL: "31.54 0.907 38.99 0.977 33.93 0.943",
    BASE: "31.73 0.911 39.23 0.978 34.38 0.946",
}


def _psnr_ssim(*benchmarks: str) -> list[tuple[str, str]]:
    return [(name, score) for name in benchmarks for score in ("psnr", "ssim")]


PRINTED = [  # rows, and the (benchmark, figure) of their columns
    (TABLE_1, [(name, "psnr") for name in GAUSSIAN]),
    (TABLE_2, _psnr_ssim("sidd-val", "dnd")),
    (TABLE_3, [("gopro", "psnr")]),
    (TABLE_4_SINGLE, [("dpdd-single", figure) for figure in DEFOCUS]),
    (TABLE_4_DUAL, [("dpdd-dual", figure) for figure in DEFOCUS]),
    (TABLE_5, _psnr_ssim("rain100h", "rain100l", "test2800")),
]


def published(benchmark: str) -> dict[str, Figures]:
    """Method -> what it is reported to reach on this benchmark, in the order of the table; a method may lack figures."""
    for rows, columns in PRINTED:
        if benchmark in dict(columns):
            return {method: dict(_figures(row, columns, benchmark)) for method, row in rows.items()}
    return {}


def _figures(row: str, columns: Sequence[tuple[str, str]], benchmark: str) -> Iterator[tuple[str, float]]:
    for (name, figure), printed in zip(columns, row.split(), strict=True):
        if name == benchmark and printed != "-":
            yield figure, float(printed)
