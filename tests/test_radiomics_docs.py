"""The code of docs/radiomics.md runs, and says what pyradiomics says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.radiomics_slices import blob, texture


def test_the_drop_in_note(repo: Path) -> None:
    featureextractor = pytest.importorskip("radiomics.featureextractor")
    sitk = pytest.importorskip("SimpleITK")
    blocks = re.findall(r"```python\n(.*?)```", (repo / "docs/radiomics.md").read_text(), re.S)
    image = sitk.GetImageFromArray(texture(3)[None])
    mask = sitk.GetImageFromArray(blob()[None].astype("uint8"))
    for item in (image, mask):
        item.SetSpacing((0.8, 0.6, 1.0))
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25, force2D=True)
    extractor.enableAllFeatures()
    extractor.enableFeatureClassByName("shape2D")
    theirs = extractor.execute(image, mask)
    names = {"image": image, "mask": mask, "sitk": sitk}
    exec(blocks[1], names)
    found = names["features"]
    assert len(found) == 102
    assert found == pytest.approx({name: float(theirs[name]) for name in found}, rel=1e-6)
    names = {"pixels_hu": texture(3), "lung_mask": blob(), "pixel_spacing_mm": (0.6, 0.8)}
    exec(blocks[0], names)
    assert names["result"].to_dict() == found
