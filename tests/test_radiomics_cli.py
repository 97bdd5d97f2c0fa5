"""``ildsdk radiomics``: files in, pyradiomics' columns out."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ildsdk.cli.radiomics import radiomics
from ildsdk.errors import ConfigError, DecodeError, IldError, InputError
from ildsdk.radiomics import FEATURE_NAMES, RadiomicsExtractor, RadiomicsSettings
from ildsdk.radiomics.names import FEATURES_BY_CLASS
from tests.radiomics_slices import blob, texture

SimpleITK = pytest.importorskip("SimpleITK")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Three slices, the mask on the last two: one good region and one single pixel."""
    volume = np.stack([texture(seed) for seed in range(3)])
    labels = np.zeros(volume.shape, dtype=np.uint8)
    labels[1] = blob()
    labels[2, 5, 5] = 1
    paths = (tmp_path / "image.nrrd", tmp_path / "mask.nii.gz")
    for path, array in zip(paths, (volume, labels), strict=True):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.6, 5.0))
        SimpleITK.WriteImage(image, str(path))
    return paths


def run(*arguments: object) -> Result:
    return CliRunner().invoke(radiomics, [str(argument) for argument in arguments])


def test_csv_has_a_row_for_each_slice_with_the_label(files: tuple[Path, Path]) -> None:
    result = run(*files)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["Slice"] for row in rows] == ["1", "2"]
    assert list(rows[0])[5:] == list(FEATURE_NAMES)
    expected = RadiomicsExtractor().extract(texture(1), blob(), (0.6, 0.8)).values
    assert [float(rows[0][name]) for name in FEATURE_NAMES] == pytest.approx(expected.tolist())
    assert rows[0]["Reason"] == ""
    assert rows[1]["Reason"] == "roi-too-small"
    assert {rows[1][name] for name in FEATURE_NAMES} == {""}


@pytest.mark.parametrize(
    ("image_name", "mask_name"),
    [
        ("image.dcm", "mask.nrrd"),
        ("image.dcm", "mask.nii.gz"),
        ("image.nii.gz", "mask.nii.gz"),
        ("image.nrrd", "mask.nrrd"),
    ],
)
def test_one_slice_in_each_format_has_pyradiomics_columns_and_values(
    tmp_path: Path, image_name: str, mask_name: str
) -> None:
    """What an existing script reads: ``original_...`` columns as pyradiomics writes them."""
    featureextractor = pytest.importorskip("radiomics.featureextractor")
    images = []
    for name, array in ((image_name, texture(1)), (mask_name, blob())):
        is_image = name == image_name
        image = SimpleITK.GetImageFromArray(array[None].astype(np.int16 if is_image else np.uint8))
        image.SetSpacing((0.8, 0.6, 1.0))
        SimpleITK.WriteImage(image, str(tmp_path / name))
        images.append(image)
    result = run(tmp_path / image_name, tmp_path / mask_name)
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25, force2D=True)
    extractor.disableAllFeatures()
    for feature_class in FEATURES_BY_CLASS:
        extractor.enableFeatureClassByName(feature_class)
    theirs = {k: float(v) for k, v in extractor.execute(*images).items() if "original_" in k[:9]}
    ours = {name: float(value) for name, value in row.items() if name.startswith("original_")}
    assert set(ours) == set(theirs)
    assert ours == pytest.approx(theirs, rel=1e-6)  # MCC; all others 1e-9 elsewhere


def test_json_and_settings(files: tuple[Path, Path]) -> None:
    result = run(*files, "--format", "json", "--set", "bin_width=10", "--set", "distances=[1, 2]")
    rows = json.loads(result.stdout)
    chosen = RadiomicsSettings(bin_width=10, distances=(1, 2))
    expected = RadiomicsExtractor(chosen).extract(texture(1), blob(), (0.6, 0.8)).to_dict()
    assert {name: rows[0][name] for name in FEATURE_NAMES} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--label", "7"], InputError, "label 7 does not occur in the mask, which holds 1"),
        (["--set", "binwidth=10"], ConfigError, "did you mean 'bin_width'"),
        (["--set", "bin_width"], ConfigError, "expected name=value"),
        (["--set", "bin_width=wide"], ConfigError, "bin_width is 'wide'"),
    ],
)
def test_what_cannot_be_answered(
    files: tuple[Path, Path], arguments: list[str], error: type[IldError], message: str
) -> None:
    result = run(*files, *arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_files_that_do_not_fit(files: tuple[Path, Path], tmp_path: Path) -> None:
    small = SimpleITK.GetImageFromArray(np.ones((3, 10, 10), dtype=np.uint8))
    SimpleITK.WriteImage(small, str(tmp_path / "small.nrrd"))
    result = run(files[0], tmp_path / "small.nrrd")
    assert isinstance(result.exception, InputError)
    assert "72 x 64 x 3 pixels and the mask 10 x 10 x 3" in str(result.exception)
    (tmp_path / "damaged.nrrd").write_bytes(b"nothing")
    result = run(tmp_path / "damaged.nrrd", files[1])
    assert isinstance(result.exception, DecodeError)
    assert str(tmp_path) not in str(result.exception)
