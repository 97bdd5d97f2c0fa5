"""Our side of the benchmarks: retrievers of each precision, and their stages."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk.answers import find_neighbors
from ildsdk.array_input import slice_from_array
from ildsdk.bundle import Bundle
from ildsdk.encoder import EncodedSlice
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.records import CtSlice, Neighbor
from ildsdk.retriever import Retriever
from ildsdk.settings import Precision, QuerySettings

NETWORK_STAGES = ("backbone", "fusion")
EVERY_SLICE = QuerySettings(every_mm=0)

Float32 = npt.NDArray[np.float32]


def has_int8(bundle: Bundle) -> bool:
    """Whether the bundle carries an int8 backbone."""
    return bundle.backbone_int8 is not None


class Ours:
    """A retriever and, to tell its stages apart, its encoder.

    Parameters
    ----------
    index : Path
        Index of the embedded bundle.
    n_threads : int
    precision : {"auto", "fp32", "int8"}
        ``"auto"`` is what a user gets who says nothing.

    Attributes
    ----------
    retriever : Retriever
        Remembers no slices: the same study comes in every round.
    precision : str
        The one that runs.
    """

    def __init__(self, index: Path, *, n_threads: int, precision: Precision = "auto") -> None:
        self.retriever = Retriever.open(
            index=index,
            provider="cpu",
            n_threads=n_threads,
            remembered_slices=0,
            precision=precision,
        )
        # The encoder and the sessions that a query really runs, not others opened like them.
        self._encoder = self.retriever._encoder
        self._networks = self._encoder._networks
        self.precision = self._encoder.precision

    @property
    def bundle(self) -> Bundle:
        """The embedded bundle."""
        return self.retriever.bundle

    def query(
        self, pixels_hu: Float32, pixel_spacing_mm: tuple[float, float]
    ) -> tuple[Neighbor, ...]:
        """Pixels in memory to top 10, as an integrator calls it."""
        embedding = self.retriever.embed_slice(pixels_hu, pixel_spacing_mm)
        return self.retriever.search(embedding)

    def staged(
        self, pixels_hu: Float32, pixel_spacing_mm: tuple[float, float]
    ) -> tuple[EncodedSlice, dict[str, float]]:
        """:meth:`query` once more, with milliseconds of its stages.

        ``rest`` is what lies between the stages: checks of the array, bookkeeping. Stages that
        run beside each other count in full.
        """
        started = time.perf_counter()
        encoded = self._encoder.encode(slice_from_array(pixels_hu, pixel_spacing_mm))
        encoded_at = time.perf_counter()
        find_neighbors(self.retriever.index, encoded.embedding, QuerySettings(), None)
        ended = time.perf_counter()
        timings_ms = {
            **{stage: ms for stage, ms in encoded.timings_ms.items() if stage != "decode"},
            "search": (ended - encoded_at) * 1e3,
        }
        timings_ms["rest"] = max(0.0, (ended - started) * 1e3 - sum(timings_ms.values()))
        return encoded, timings_ms

    def network_input(self, ct_slice: CtSlice) -> tuple[Float32, npt.NDArray[np.float64]]:
        """Model input and features of a slice, for :meth:`run_network`."""
        lung = segment_lung(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm).lung_mask
        method = self.bundle.method
        image = model_input(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung, method)
        return image, self._encoder.encode(ct_slice).features

    def run_network(self, image: Float32, features: npt.NDArray[np.float64]) -> None:
        """Backbone and fusion net alone, by the very sessions that a query runs.

        Parameters
        ----------
        image : ndarray
            Model input, float32 ``(1, S, S)``.
        features : ndarray
            float64 ``(102,)``.
        """
        radiomics = self.bundle.scaler.transform(features)[np.newaxis]
        self._networks.embed(image[np.newaxis], lambda: radiomics)

    def close(self) -> None:
        """Close the index."""
        self.retriever.close()
