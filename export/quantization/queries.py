"""Queries for the comparison of two forms: prepared slices, or the CT of a DICOM folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.dataset import SliceSet
from export.quantization.agreement import QuerySet
from ildsdk.bundle import Bundle
from ildsdk.errors import InputError, SliceUnusableError

UNKNOWN = "unknown"


def prepared_queries(slices: SliceSet, rows: npt.NDArray[np.int64], bundle: Bundle) -> QuerySet:
    """Rows of a prepared set as queries."""
    return QuerySet(
        images=[slices.images[row : row + 1].astype(np.float32) for row in rows],
        radiomics=bundle.scaler.transform(slices.radiomics[rows]),
        labels=tuple(slices.labels[row] for row in rows),
        case_ids=tuple(slices.case_ids[row] for row in rows),
    )


def dicom_queries(folder: Path, bundle: Bundle) -> QuerySet:
    """Every usable slice of every study under a folder, prepared as a query's is.

    Raises
    ------
    InputError
        The folder holds no usable slice.
    """
    from ildsdk.dicom import discover, read_slice
    from ildsdk.lung import segment_lung
    from ildsdk.model_input import model_input
    from ildsdk.radiomics import RadiomicsExtractor

    extractor = RadiomicsExtractor()
    images, features, cases = [], [], []
    for number, study in enumerate(discover(folder, every_mm=0).studies):
        for header in study.slices:
            try:
                ct_slice = read_slice(header)
                pixels, spacing = ct_slice.pixels_hu, ct_slice.pixel_spacing_mm
                lung = segment_lung(pixels, spacing, min_area_mm2=bundle.method.min_lung_area_mm2)
                found = extractor.extract(pixels, lung.lung_mask, spacing).values
            except (SliceUnusableError, InputError):
                continue
            image = model_input(pixels, spacing, lung.lung_mask, bundle.method)
            images.append(image[np.newaxis])
            features.append(found)
            cases.append(f"study {number}")
    if not images:
        raise InputError("the folder of real CT holds no slice that can be used")
    return QuerySet(
        images=images,
        radiomics=bundle.scaler.transform(np.stack(features)),
        labels=(UNKNOWN,) * len(images),
        case_ids=tuple(cases),
    )
