"""The reference stack: what a good engineer builds from the paper with the usual parts.

pydicom, scikit-learn's KMeans and scikit-image's morphology, pyradiomics, torch in eager mode,
faiss. It is the rival of our speed claims: same weights, same vectors, same threads, same answers.

    python -m benchmarks.reference_stack one.dcm --files FOLDER

is its cold start; ``benchmarks.reference_files`` writes the folder. Nothing of ildsdk is imported
here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
import warnings
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.reference_mask import lung_mask
from benchmarks.reference_network import ReferenceBackbone, ReferenceFusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pyradiomics' own use of deprecated names
    from radiomics import featureextractor

WEIGHTS_NAME, SETTINGS_NAME = "weights.safetensors", "settings.json"
INDEX_NAME, ITEMS_NAME = "index.faiss", "items.json"
FEATURE_CLASSES = ("firstorder", "shape2D", "glcm", "glrlm", "glszm", "ngtdm", "gldm")
AIR_HU = -1024.0
TOP_N = 10

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceAnswer:
    """Answer to one slice, and what it was made of.

    Attributes
    ----------
    rows, scores : ndarray
        int64 and float32 ``(top_n,)``, best first.
    neighbors : tuple of (item_id, case_id, label, score)
    embedding : ndarray
        float32 ``(d,)``, unit norm.
    features : ndarray
        float64 ``(102,)``.
    mask : ndarray
        bool, the shape of the slice.
    timings_ms : dict
        mask, radiomics, model_input, backbone, fusion, search.
    """

    rows: npt.NDArray[np.int64]
    scores: Float32
    neighbors: tuple[tuple[str, str, str, float], ...]
    embedding: Float32
    features: npt.NDArray[np.float64]
    mask: Mask
    timings_ms: dict[str, float]


class ReferenceStack:
    """Open with :meth:`open`."""

    def __init__(
        self,
        settings: dict,
        backbone: ReferenceBackbone,
        fusion: ReferenceFusion,
        index: faiss.Index,
        items: list[list[str]],
    ) -> None:
        self._settings = settings
        self._backbone, self._fusion = backbone, fusion
        self._index, self._items = index, items
        self._scaler = {key: np.asarray(value) for key, value in settings["scaler"].items()}
        logging.getLogger("radiomics").setLevel(logging.CRITICAL)
        self._extractor = featureextractor.RadiomicsFeatureExtractor(**settings["pyradiomics"])
        self._extractor.disableAllFeatures()
        for name in FEATURE_CLASSES:
            self._extractor.enableFeatureClassByName(name)

    @classmethod
    def open(cls, folder: Path, *, n_threads: int) -> ReferenceStack:
        """Load weights, settings and index.

        Parameters
        ----------
        folder : Path
            As :func:`benchmarks.reference_files.write_reference_files` writes it.
        n_threads : int
            Of torch and faiss; K-means takes OpenMP's count from the environment.
        """
        torch.set_num_threads(n_threads)
        faiss.omp_set_num_threads(n_threads)
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(n_threads)
        settings = json.loads((folder / SETTINGS_NAME).read_text())
        weights = load_file(folder / WEIGHTS_NAME)
        with torch.device("meta"):  # no time for random starting weights
            backbone = ReferenceBackbone(settings["gem_p"])
            fusion = ReferenceFusion(
                settings["n_deep"], len(settings["feature_names"]), settings["embedding_size"]
            )
        for name, module in (("backbone.", backbone), ("fusion.", fusion)):
            part = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
            module.load_state_dict(part, strict=True, assign=True)
            module.eval().requires_grad_(False)
        index = faiss.read_index(str(folder / INDEX_NAME))
        items = json.loads((folder / ITEMS_NAME).read_text())
        return cls(settings, backbone, fusion, index, items)

    def read(self, path: Path) -> tuple[Float32, tuple[float, float]]:
        """Hounsfield units and pixel spacing of a DICOM file."""
        dataset = pydicom.dcmread(path)
        pixels_hu = dataset.pixel_array.astype(np.float32)
        pixels_hu *= np.float32(dataset.RescaleSlope)
        pixels_hu += np.float32(dataset.RescaleIntercept)
        row_mm, column_mm = (float(step) for step in dataset.PixelSpacing)
        return np.maximum(pixels_hu, np.float32(AIR_HU)), (row_mm, column_mm)

    def query_file(self, path: Path) -> ReferenceAnswer:
        """Answer one DICOM file."""
        started = time.perf_counter()
        pixels_hu, pixel_spacing_mm = self.read(path)
        decode_ms = (time.perf_counter() - started) * 1e3
        answer = self.query(pixels_hu, pixel_spacing_mm)
        timings_ms = {"decode": decode_ms, **answer.timings_ms}
        return dataclasses.replace(answer, timings_ms=timings_ms)

    @torch.inference_mode()
    def query(
        self,
        pixels_hu: Float32,
        pixel_spacing_mm: tuple[float, float],
        *,
        mask: Mask | None = None,
    ) -> ReferenceAnswer:
        """Answer one slice.

        Parameters
        ----------
        pixels_hu : ndarray
            float32 ``(n_rows, n_columns)``.
        pixel_spacing_mm : tuple of float
            ``(row_spacing, column_spacing)``.
        mask : ndarray or None
            Lung mask to take; None makes one.

        Raises
        ------
        ValueError
            No lung is found.
        """
        laps = [time.perf_counter()]
        windowed = self.window(pixels_hu)
        if mask is None:
            mask = lung_mask(windowed, pixel_spacing_mm)
        if not mask.any():
            raise ValueError("no lung found in the slice")
        laps.append(time.perf_counter())
        features = self.features(pixels_hu, mask, pixel_spacing_mm)
        laps.append(time.perf_counter())
        image = torch.from_numpy(self.model_input(windowed, mask, pixel_spacing_mm))
        laps.append(time.perf_counter())
        deep = self._backbone(image[None, None])
        laps.append(time.perf_counter())
        embedding = self._fusion(deep, torch.from_numpy(self.standardized(features))[None]).numpy()
        laps.append(time.perf_counter())
        scores, rows = self._index.search(embedding, TOP_N)
        neighbors = tuple(
            (*self._items[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)
        )
        laps.append(time.perf_counter())
        stages = ("mask", "radiomics", "model_input", "backbone", "fusion", "search")
        return ReferenceAnswer(
            rows=rows[0],
            scores=scores[0],
            neighbors=neighbors,
            embedding=embedding[0],
            features=features,
            mask=mask,
            timings_ms=dict(zip(stages, (np.diff(laps) * 1e3).tolist(), strict=True)),
        )

    def window(self, pixels_hu: Float32) -> Float32:
        """Lung window, to [0, 1]."""
        width = self._settings["window_width_hu"]
        lowest = self._settings["window_center_hu"] - width / 2
        return np.clip((pixels_hu - np.float32(lowest)) / np.float32(width), 0, 1)

    def features(
        self, pixels_hu: Float32, mask: Mask, pixel_spacing_mm: tuple[float, float]
    ) -> npt.NDArray[np.float64]:
        """102 radiomics features by pyradiomics, float64, NaN where it has none."""
        image = SimpleITK.GetImageFromArray(pixels_hu)
        labels = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        for item in (image, labels):
            item.SetSpacing((pixel_spacing_mm[1], pixel_spacing_mm[0]))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = self._extractor.execute(image, labels)
        names = self._settings["feature_names"]
        return np.array([float(np.real(found.get(name, np.nan))) for name in names])

    def standardized(self, features: npt.NDArray[np.float64]) -> Float32:
        """Features in standard deviations of the training set, clipped, float32."""
        clip = self._scaler["clip"]
        scaled = (features - self._scaler["mean"]) / self._scaler["scale"]
        return np.clip(scaled, -clip, clip).astype(np.float32)

    def model_input(
        self, windowed: Float32, mask: Mask, pixel_spacing_mm: tuple[float, float]
    ) -> Float32:
        """Masked square around the lungs, resampled by Pillow: float32 ``(S, S)``."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        lung = np.where(mask[box], windowed[box], np.float32(0))
        sides_mm = np.multiply(lung.shape, pixel_spacing_mm)
        side_mm = sides_mm.max() * (1 + 2 * self._settings["crop_margin"])
        # Pillow reads inside the picture only: zeros to beyond the square on each side.
        spaces = np.ceil((side_mm - sides_mm) / pixel_spacing_mm / 2).astype(int) + 1
        padded = np.pad(lung, [(space, space) for space in spaces])
        height, width = side_mm / pixel_spacing_mm[0], side_mm / pixel_spacing_mm[1]
        top, left = (padded.shape[0] - height) / 2, (padded.shape[1] - width) / 2
        size = self._settings["input_size"]
        square = Image.fromarray(padded).resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
        )
        return np.array(square)


def main() -> None:
    """Answer one DICOM file and print JSON."""
    parser = argparse.ArgumentParser(description="One slice through the reference stack.")
    parser.add_argument("slice", type=Path, help="DICOM file.")
    parser.add_argument("--files", type=Path, required=True, help="Folder of weights and index.")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    stack = ReferenceStack.open(asked.files, n_threads=asked.threads)
    answer = stack.query_file(asked.slice)
    neighbors = [
        {"item_id": item_id, "case_id": case_id, "label": label, "score": round(score, 6)}
        for item_id, case_id, label, score in answer.neighbors
    ]
    json.dump({"neighbors": neighbors, "timings_ms": answer.timings_ms}, sys.stdout)


if __name__ == "__main__":
    main()
