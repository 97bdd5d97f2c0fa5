"""From slices to embeddings, streaming.

Mask and radiomics of the next slices run while the network works on this one.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ildsdk.bundle import Bundle
from ildsdk.errors import ModelError, SliceUnusableError
from ildsdk.explain import SliceBox
from ildsdk.model_input import input_box, model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.records import CtSlice, LungMask
from ildsdk.runtime.networks import open_networks
from ildsdk.runtime.session import Session
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import RuntimeSettings

_UNIT_NORM_TOLERANCE = 1e-3

SourceT = TypeVar("SourceT")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSlice:
    """A slice with what the method made of it.

    Attributes
    ----------
    ct_slice : CtSlice
    lung : LungMask
    features : ndarray
        float64 ``(102,)`` radiomics features in the order of ``ildsdk.radiomics.FEATURE_NAMES``.
    embedding : ndarray
        float32 ``(d,)``, unit norm.
    timings_ms : dict
        decode, mask, radiomics, model_input, backbone, fusion; explain where that was asked for.
    locations : ndarray or None
        float32 ``(h, w, d)``, location vectors for activation maps (:mod:`ildsdk.explain`); None
        where they were not asked for.
    input_box : SliceBox or None
        Part of the slice that the model input shows, with ``locations``.
    """

    ct_slice: CtSlice
    lung: LungMask
    features: npt.NDArray[np.float64]
    embedding: npt.NDArray[np.float32]
    timings_ms: dict[str, float]
    locations: npt.NDArray[np.float32] | None = None
    input_box: SliceBox | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedSlice:
    ct_slice: CtSlice
    lung: LungMask
    features: npt.NDArray[np.float64]
    image: npt.NDArray[np.float32]
    timings_ms: dict[str, float]


class Encoder:
    """Runs mask, radiomics, backbone and fusion of one bundle. Safe to share between threads.

    Parameters
    ----------
    bundle : Bundle
    settings : RuntimeSettings

    Attributes
    ----------
    provider : str
        The execution provider that really runs.
    precision : {"fp32", "int8", "fp16"}
        Arithmetic of the backbone that really runs.
    n_threads : int
        The thread budget in force.

    Raises
    ------
    ModelError
        The provider cannot run, or the models do not fit the bundle's manifest.
    ConfigError
        The precision asked for cannot run with this bundle on this provider.
    """

    def __init__(self, bundle: Bundle, settings: RuntimeSettings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.n_threads = settings.n_threads or available_cpus()
        self._networks = open_networks(bundle, settings, self.n_threads)
        self.provider = self._networks.provider
        self.precision = self._networks.precision
        self._extractor = RadiomicsExtractor(engine=settings.radiomics_engine)

    def check_explain(self) -> None:
        """Load the graph of activation maps and check that it fits the other two.

        Raises
        ------
        ConfigError
            The bundle has none.
        ModelError
            It does not load, or does not fit.
        """
        self._networks.explain()

    def encode(self, ct_slice: CtSlice, *, with_locations: bool = False) -> EncodedSlice:
        """Embed one slice.

        Parameters
        ----------
        with_locations : bool
            Also compute its location vectors, for activation maps; the network runs once.

        Raises
        ------
        SliceUnusableError
            The slice shows no or too little lung, or its features are degenerate.
        ModelError
            The network failed, or gave something that is not a unit vector.
        ConfigError
            Location vectors are asked for and the bundle has no graph of activation maps.
        """
        return self._run_network(self._prepare(lambda: ct_slice), with_locations)

    def self_test(self) -> None:
        """Run all networks once on a made-up input.

        Raises
        ------
        ModelError
            A network fails on this provider or does not give a unit vector.
        """
        size = self.bundle.method.input_size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(1, size, size)
        self._embed(ramp, self.bundle.scaler.mean, _StageClock(), self.bundle.explain is not None)

    def iter_encode(
        self,
        sources: Iterable[SourceT],
        read: Callable[[SourceT], CtSlice],
        *,
        with_locations: bool = False,
    ) -> Iterator[tuple[SourceT, EncodedSlice | SliceUnusableError]]:
        """Embed many slices in order; unusable ones come out as their error.

        Parameters
        ----------
        sources : iterable
            What ``read`` turns into a slice. Read a few ahead of the network, no more:
            memory does not grow with the study.
        read : callable
            Decodes one slice; what it raises other than SliceUnusableError ends the stream.
        with_locations : bool
            As in :meth:`encode`.

        Yields
        ------
        (source, EncodedSlice or SliceUnusableError)
        """
        if self.n_threads == 1:
            for source in sources:
                yield source, self._outcome(self._guarded(read, source), with_locations)
            return
        pending: collections.deque[tuple[SourceT, Future[_PreparedSlice | SliceUnusableError]]]
        pending = collections.deque()
        with ThreadPoolExecutor(self.n_threads - 1, thread_name_prefix="ildsdk-prepare") as pool:
            try:
                for source in sources:
                    pending.append((source, pool.submit(self._guarded, read, source)))
                    if len(pending) >= self.n_threads:
                        done_source, future = pending.popleft()
                        yield done_source, self._outcome(future.result(), with_locations)
                while pending:
                    done_source, future = pending.popleft()
                    yield done_source, self._outcome(future.result(), with_locations)
            finally:  # also when the consumer stops early
                for _, future in pending:
                    future.cancel()

    def _guarded(
        self, read: Callable[[SourceT], CtSlice], source: SourceT
    ) -> _PreparedSlice | SliceUnusableError:
        try:
            return self._prepare(lambda: read(source))
        except SliceUnusableError as error:
            return error

    def _outcome(
        self, prepared: _PreparedSlice | SliceUnusableError, with_locations: bool
    ) -> EncodedSlice | SliceUnusableError:
        if isinstance(prepared, SliceUnusableError):
            return prepared
        return self._run_network(prepared, with_locations)

    def _prepare(self, load: Callable[[], CtSlice]) -> _PreparedSlice:
        # Starts numba, which is loaded beside the networks: ildsdk.kernel_loading.
        from ildsdk.lung import segment_lung

        clock = _StageClock()
        ct_slice = load()
        clock.lap("decode")
        lung = segment_lung(
            ct_slice.pixels_hu,
            ct_slice.pixel_spacing_mm,
            min_area_mm2=self.bundle.method.min_lung_area_mm2,
        )
        clock.lap("mask")
        features = self._extractor.extract(
            ct_slice.pixels_hu, lung.lung_mask, ct_slice.pixel_spacing_mm
        ).values
        clock.lap("radiomics")
        image = model_input(
            ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung.lung_mask, self.bundle.method
        )
        clock.lap("model_input")
        return _PreparedSlice(
            ct_slice=ct_slice, lung=lung, features=features, image=image, timings_ms=clock.laps_ms
        )

    def _run_network(self, prepared: _PreparedSlice, with_locations: bool) -> EncodedSlice:
        clock = _StageClock()
        embedding, locations = self._embed(prepared.image, prepared.features, clock, with_locations)
        box = None
        if with_locations:
            box = input_box(
                prepared.lung.lung_mask, prepared.ct_slice.pixel_spacing_mm, self.bundle.method
            )
        return EncodedSlice(
            ct_slice=prepared.ct_slice,
            lung=prepared.lung,
            features=prepared.features,
            embedding=embedding,
            timings_ms={**prepared.timings_ms, **clock.laps_ms},
            locations=locations,
            input_box=box,
        )

    def _embed(
        self,
        image: npt.NDArray[np.float32],
        features: npt.NDArray[np.float64],
        clock: _StageClock,
        with_locations: bool,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        explain = self._networks.explain() if with_locations else None
        deep_features, feature_map = self._networks.run_backbone(
            image[np.newaxis], with_map=with_locations
        )
        clock.lap("backbone")
        radiomics = self.bundle.scaler.transform(features)[np.newaxis]
        embedding = self._networks.fusion.run_all(
            ["embedding"], {"deep_features": deep_features, "radiomics": radiomics}
        )[0][0]
        clock.lap("fusion")
        norm = float(np.linalg.norm(embedding))
        if not abs(norm - 1) <= _UNIT_NORM_TOLERANCE:  # also true for NaN
            raise ModelError(
                f"the fusion network gave a vector of norm {norm:.6g}, expected 1; the bundle is "
                "damaged or the execution provider computes wrongly (see ildsdk doctor)"
            )
        locations = None
        if explain is not None and feature_map is not None:
            locations = _locations(explain, feature_map, radiomics, self.bundle.embedding_size)
            clock.lap("explain")
        return np.ascontiguousarray(embedding / np.float32(norm)), locations


class _StageClock:
    """Wall-clock milliseconds between laps."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = round((now - self._last) * 1e3, 3)
        self._last = now


def _locations(
    explain: Session,
    feature_map: npt.NDArray[np.float32],
    radiomics: npt.NDArray[np.float32],
    embedding_size: int,
) -> npt.NDArray[np.float32]:
    """Location vectors of one slice, float32 ``(h, w, d)``."""
    inputs = {"feature_map": feature_map, "radiomics": radiomics}
    found = explain.run_all(["locations"], inputs)[0]
    height, width = feature_map.shape[2:]
    if found.shape != (1, height * width, embedding_size) or not np.isfinite(found).all():
        raise ModelError(
            f"explain.onnx gave an array {found.shape} (or values that are not finite), expected "
            f"{(1, height * width, embedding_size)}; the bundle is damaged"
        )
    return np.ascontiguousarray(found.reshape(height, width, embedding_size))
