"""Third-party expected values: pyradiomics' published baselines and the IBSI digital phantom.

The engine is two-dimensional. A volume whose matrices are taken slice by slice is the same as
one picture of its slices side by side with a gap between, so every baseline made with
``force2D`` is in reach, and first-order features, which know no neighbors, are all in reach.
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk.radiomics import FEATURE_NAMES, RadiomicsExtractor, RadiomicsSettings

SimpleITK = pytest.importorskip("SimpleITK")

Table = dict[str, dict[str, str]]


def read_table(path: Path) -> Table:
    """Column -> row name -> text of a baseline file."""
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    return {
        column: {row[0]: row[i] for row in rows[1:]} for i, column in enumerate(rows[0]) if i > 0
    }


def read_volume(path: Path) -> tuple[npt.NDArray[np.generic], tuple[float, float, float]]:
    """Array ``(slice, row, column)`` and spacing in the same order."""
    image = SimpleITK.ReadImage(str(path))
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing()[::-1]


def side_by_side(volume: npt.NDArray[np.generic], gap: int) -> npt.NDArray[np.generic]:
    """Slices under each other in one picture, ``gap`` rows of zeros between."""
    padded = np.pad(volume, ((0, 0), (0, gap), (0, 0)))
    return padded.reshape(-1, volume.shape[2])


def settings_of(text: str) -> RadiomicsSettings:
    """Settings of a baseline column as ours."""
    found = ast.literal_eval(text)
    reach = found.get("resegmentRange")
    return RadiomicsSettings(
        bin_width=float(found.get("binWidth", 25)),
        bin_count=found.get("binCount"),
        distances=tuple(found["distances"]),
        weighting_norm=found.get("weightingNorm"),
        gldm_alpha=found.get("gldm_a", 0),
        voxel_array_shift=found.get("voxelArrayShift", 0),
        normalize=found["normalize"],
        normalize_scale=found["normalizeScale"],
        resegment_range=tuple(reach) if reach else None,
        resegment_mode=found.get("resegmentMode", "absolute"),
        minimum_roi_dimensions=1,
    )


def covered(feature_class: str, column: str, text: str) -> bool:
    """Whether a two-dimensional engine can be asked for this column."""
    found = ast.literal_eval(text)
    if found.get("interpolator") and found.get("resampledPixelSpacing"):
        return False
    return feature_class == "firstorder" or bool(found.get("force2D"))


@pytest.mark.parametrize(
    ("feature_class", "n_expected"),
    [
        ("shape2D", 27),
        ("firstorder", 162),
        ("glcm", 72),
        ("glrlm", 48),
        ("glszm", 48),
        ("gldm", 42),
        ("ngtdm", 15),
    ],
)
def test_published_baseline(shared_data: Path, feature_class: str, n_expected: int) -> None:
    folder = shared_data / "radiomics" / "pyradiomics"
    wanted = [name for name in FEATURE_NAMES if name.startswith(f"original_{feature_class}_")]
    n_equal = 0
    wrong = []
    for column, rows in read_table(folder / f"baseline_{feature_class}.csv").items():
        text = rows["diagnostics_Configuration_Settings"]
        if not covered(feature_class, column, text):
            continue
        case = column.split("_")[0]
        image, spacing = read_volume(folder / f"{case}_image.nrrd")
        mask = read_volume(folder / f"{case}_label.nrrd")[0] == 1
        if feature_class == "shape2D":
            box = ast.literal_eval(rows["diagnostics_Mask-corrected_BoundingBox"])
            image, mask = image[box[2]], mask[box[2]]
            assert mask.sum() == int(rows["diagnostics_Mask-original_VoxelNum"])
            pixel_spacing_mm = spacing[1:]
        elif feature_class == "firstorder":
            # no gap: normalization looks at the whole picture; TotalEnergy counts volume
            image, mask = side_by_side(image, 0), side_by_side(mask, 0)
            pixel_spacing_mm = (spacing[0] * spacing[1], spacing[2])
        else:
            image, mask = side_by_side(image, 1), side_by_side(mask, 1)
            pixel_spacing_mm = spacing[1:]
        found = (
            RadiomicsExtractor(settings_of(text))
            .extract(image, mask, pixel_spacing_mm, strict=False)
            .to_dict()
        )
        for name in wanted:
            expected = float(rows[name])
            if found[name] == pytest.approx(expected, rel=1e-6, abs=1e-12):
                n_equal += 1
            else:
                wrong.append(f"{column} {name}: {found[name]!r}, published {expected!r}")
    assert not wrong, "\n".join(wrong)
    assert n_equal == n_expected


# IBSI family -> feature class, IBSI short name -> pyradiomics name
IBSI_NAMES = {
    "cm": (
        "glcm",
        {
            "joint_max": "MaximumProbability",
            "joint_avg": "JointAverage",
            "joint_var": "SumSquares",
            "joint_entr": "JointEntropy",
            "diff_avg": "DifferenceAverage",
            "diff_var": "DifferenceVariance",
            "diff_entr": "DifferenceEntropy",
            "sum_avg": "SumAverage",
            "sum_entr": "SumEntropy",
            "energy": "JointEnergy",
            "contrast": "Contrast",
            "inv_diff": "Id",
            "inv_diff_norm": "Idn",
            "inv_diff_mom": "Idm",
            "inv_diff_mom_norm": "Idmn",
            "inv_var": "InverseVariance",
            "corr": "Correlation",
            "auto_corr": "Autocorrelation",
            "clust_tend": "ClusterTendency",
            "clust_shade": "ClusterShade",
            "clust_prom": "ClusterProminence",
            "info_corr1": "Imc1",
            "info_corr2": "Imc2",
        },
    ),
    "rlm": (
        "glrlm",
        {
            "sre": "ShortRunEmphasis",
            "lre": "LongRunEmphasis",
            "lgre": "LowGrayLevelRunEmphasis",
            "hgre": "HighGrayLevelRunEmphasis",
            "srlge": "ShortRunLowGrayLevelEmphasis",
            "srhge": "ShortRunHighGrayLevelEmphasis",
            "lrlge": "LongRunLowGrayLevelEmphasis",
            "lrhge": "LongRunHighGrayLevelEmphasis",
            "glnu": "GrayLevelNonUniformity",
            "glnu_norm": "GrayLevelNonUniformityNormalized",
            "rlnu": "RunLengthNonUniformity",
            "rlnu_norm": "RunLengthNonUniformityNormalized",
            "r_perc": "RunPercentage",
            "gl_var": "GrayLevelVariance",
            "rl_var": "RunVariance",
            "rl_entr": "RunEntropy",
        },
    ),
    "szm": (
        "glszm",
        {
            "sze": "SmallAreaEmphasis",
            "lze": "LargeAreaEmphasis",
            "lgze": "LowGrayLevelZoneEmphasis",
            "hgze": "HighGrayLevelZoneEmphasis",
            "szlge": "SmallAreaLowGrayLevelEmphasis",
            "szhge": "SmallAreaHighGrayLevelEmphasis",
            "lzlge": "LargeAreaLowGrayLevelEmphasis",
            "lzhge": "LargeAreaHighGrayLevelEmphasis",
            "glnu": "GrayLevelNonUniformity",
            "glnu_norm": "GrayLevelNonUniformityNormalized",
            "zsnu": "SizeZoneNonUniformity",
            "zsnu_norm": "SizeZoneNonUniformityNormalized",
            "z_perc": "ZonePercentage",
            "gl_var": "GrayLevelVariance",
            "zs_var": "ZoneVariance",
            "zs_entr": "ZoneEntropy",
        },
    ),
    "ngl": (
        "gldm",
        {
            "lde": "SmallDependenceEmphasis",
            "hde": "LargeDependenceEmphasis",
            "lgce": "LowGrayLevelEmphasis",
            "hgce": "HighGrayLevelEmphasis",
            "ldlge": "SmallDependenceLowGrayLevelEmphasis",
            "ldhge": "SmallDependenceHighGrayLevelEmphasis",
            "hdlge": "LargeDependenceLowGrayLevelEmphasis",
            "hdhge": "LargeDependenceHighGrayLevelEmphasis",
            "glnu": "GrayLevelNonUniformity",
            "dcnu": "DependenceNonUniformity",
            "dcnu_norm": "DependenceNonUniformityNormalized",
            "gl_var": "GrayLevelVariance",
            "dc_var": "DependenceVariance",
            "dc_entr": "DependenceEntropy",
        },
    ),
    "ngt": (
        "ngtdm",
        {
            "coarseness": "Coarseness",
            "contrast": "Contrast",
            "busyness": "Busyness",
            "complexity": "Complexity",
            "strength": "Strength",
        },
    ),
}

IBSI_STATISTICS = {
    "mean": "Mean",
    "var": "Variance",
    "skew": "Skewness",
    "kurt": "Kurtosis",
    "median": "Median",
    "min": "Minimum",
    "p10": "10Percentile",
    "p90": "90Percentile",
    "max": "Maximum",
    "iqr": "InterquartileRange",
    "range": "Range",
    "mad": "MeanAbsoluteDeviation",
    "rmad": "RobustMeanAbsoluteDeviation",
    "energy": "Energy",
    "rms": "RootMeanSquared",
}


def ibsi_values(shared_data: Path) -> dict[str, float]:
    """Tag -> consensus value, those that exist."""
    path = shared_data / "radiomics" / "ibsi_digital" / "ibsi_1_dig_phantom.csv"
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream, delimiter=";"))[1:]
    return {tag: float(value) for value, _, tag in rows if value}


def ibsi_engine(shared_data: Path, aggregation: str, merged: bool) -> list[dict[str, float | None]]:
    """Features of the digital phantom: of each slice (2D), or of all slices merged (2.5D)."""
    folder = shared_data / "radiomics" / "ibsi_digital"
    image, spacing = read_volume(folder / "image.nii.gz")
    mask = read_volume(folder / "mask.nii.gz")[0] > 0
    extractor = RadiomicsExtractor(
        RadiomicsSettings(bin_width=1.0, weighting_norm="no_weighting" if merged else None)
    )
    if aggregation == "2D":
        pictures = [(image[k], mask[k]) for k in range(image.shape[0])]
    else:
        pictures = [(side_by_side(image, 1), side_by_side(mask, 1))]
    return [
        extractor.extract(pixels, region, spacing[1:], strict=False).to_dict()
        for pixels, region in pictures
    ]


def ibsi_results(shared_data: Path) -> dict[str, tuple[float, float]]:
    """Tag -> (consensus value, ours) for all tags the two-dimensional engine covers."""
    consensus = ibsi_values(shared_data)
    found: dict[str, tuple[float, float]] = {}
    for aggregation, suffix in (("2D", "2D"), ("2.5D", "2_5D")):
        for merged, how in ((False, "avg"), (True, "comb")):
            features = ibsi_engine(shared_data, aggregation, merged)
            for family, (feature_class, names) in IBSI_NAMES.items():
                if merged and family not in ("cm", "rlm"):
                    continue
                for short, name in names.items():
                    tag = f"{family}_{short}_{suffix}"
                    if family in ("cm", "rlm"):
                        tag += f"_{how}"
                    ours = [f[f"original_{feature_class}_{name}"] for f in features]
                    if tag in consensus and None not in ours:
                        found[tag] = (consensus[tag], float(np.mean(np.array(ours, float))))
    whole = ibsi_engine(shared_data, "2.5D", merged=False)[0]
    for short, name in IBSI_STATISTICS.items():
        ours = float(whole[f"original_firstorder_{name}"] or 0.0)
        # IBSI's kurtosis is the excess over a normal distribution's, pyradiomics' is not
        found[f"stat_{short}"] = (
            consensus[f"stat_{short}"],
            ours - 3.0 if name == "Kurtosis" else ours,
        )
    return found


def equal_to_three_digits(ours: float, consensus: float) -> bool:
    """Whether ours rounds to the consensus value, which has three significant digits."""
    return float(f"{ours:.3g}") == pytest.approx(consensus, rel=1e-9)


def test_ibsi_digital_phantom(shared_data: Path) -> None:
    results = ibsi_results(shared_data)
    wrong = {
        tag: values for tag, values in results.items() if not equal_to_three_digits(*values[::-1])
    }
    assert not wrong, "\n".join(
        f"{tag}: consensus {a}, ours {b}" for tag, (a, b) in sorted(wrong.items())
    )
    assert len(results) == 226 + len(IBSI_STATISTICS)
