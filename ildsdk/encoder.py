"""From one slice to its embedding: mask, radiomics, model input, networks.

Alone, a slice has all threads: radiomics runs while the backbone works. Among many, each slice has
one thread through all stages, which keeps every core busy (docs/pipeline.md).
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ildsdk.bundle import Bundle
from ildsdk.errors import ModelError
from ildsdk.explain import SliceBox
from ildsdk.model_input import input_box, model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.records import CtSlice, LungMask
from ildsdk.runtime.networks import Networks, open_networks
from ildsdk.runtime.session import Session
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import RuntimeSettings
from ildsdk.stopping import StopCheck, never_stop

_UNIT_NORM_TOLERANCE = 1e-3
# Opening the networks once more takes as long as it saves over about this many slices.
_MANY_SLICES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSlice:
    """A slice with what the method made of it.

    Attributes
    ----------
    ct_slice : CtSlice
    lung_area_mm2 : float
        Area of lung parenchyma.
    lung : LungMask or None
        None where the slice was recognized (:mod:`ildsdk.slice_memory`) and no mask asked for.
    features : ndarray
        float64 ``(102,)`` radiomics features in the order of ``ildsdk.radiomics.FEATURE_NAMES``.
    embedding : ndarray
        float32 ``(d,)``, unit norm.
    timings_ms : dict
        Milliseconds of mask, radiomics, model_input, backbone, fusion; where maps were asked for
        also explain, and map_backbone (float32) where the backbone itself ran in 8 bits.
        Radiomics and the stages after it may have run side by side.
    locations : ndarray or None
        float32 ``(h, w, d)``, location vectors for activation maps (:mod:`ildsdk.explain`); None
        where they were not asked for.
    input_box : SliceBox or None
        Part of the slice that the model input shows, with ``locations``.
    """

    ct_slice: CtSlice
    lung_area_mm2: float
    lung: LungMask | None
    features: npt.NDArray[np.float64]
    embedding: npt.NDArray[np.float32]
    timings_ms: dict[str, float]
    locations: npt.NDArray[np.float32] | None = None
    input_box: SliceBox | None = None


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
        self._scratches: collections.deque[RadiomicsScratch]
        self._scratches = collections.deque(maxlen=self.n_threads)
        self._narrow: Networks | None = None  # opened for the first long study
        self._lock = threading.Lock()

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

    def expect(self, n_slices: int) -> None:
        """Say how many slices come, before they are encoded at once on all threads.

        For many, networks of one thread each are opened, and kept: as many of them as there are
        threads do more together than runs that share a pool of threads. Same embeddings.

        Raises
        ------
        ModelError
            They do not open.
        """
        if n_slices < _MANY_SLICES or self.n_threads == 1 or self.provider != "cpu":
            return
        alike = dataclasses.replace(self.settings, provider="cpu", precision=self.precision)
        with self._lock:
            if self._narrow is None:
                self._narrow = open_networks(self.bundle, alike, 1)

    def _networks_for(self, n_at_once: int) -> Networks:
        """Networks for a slice among ``n_at_once``."""
        if self._narrow is not None and n_at_once >= self.n_threads:
            return self._narrow
        return self._networks

    def encode(
        self,
        ct_slice: CtSlice,
        *,
        with_locations: bool = False,
        n_at_once: int = 1,
        check: StopCheck = never_stop,
    ) -> EncodedSlice:
        """Embed one slice.

        Parameters
        ----------
        with_locations : bool
            Also compute its location vectors, for activation maps; the network runs once.
        n_at_once : int
            Slices that the caller has encoded at the same time, this one counted: how many share
            the threads.
        check : callable
            Called between stages; what it raises ends the work.

        Raises
        ------
        SliceUnusableError
            The slice shows no or too little lung, or its features are degenerate.
        ModelError
            The network failed, or gave something that is not a unit vector.
        ConfigError
            Location vectors are asked for and the bundle has no graph of activation maps.
        """
        # Starts numba, which is loaded beside the networks: ildsdk.kernel_loading.
        from ildsdk.lung import segment_lung

        clock = _StageClock()
        lung = segment_lung(
            ct_slice.pixels_hu,
            ct_slice.pixel_spacing_mm,
            min_area_mm2=self.bundle.method.min_lung_area_mm2,
        )
        clock.lap("mask")
        check()
        networks = self._networks_for(n_at_once)
        if 2 * n_at_once <= self.n_threads:
            with ThreadPoolExecutor(1, thread_name_prefix="ildsdk-radiomics") as pool:
                radiomics = pool.submit(self._features, ct_slice, lung)
                found = self._embed(
                    networks, ct_slice, lung, radiomics.result, clock, with_locations, check
                )
        else:
            features = self._features(ct_slice, lung)
            check()
            clock.restart()
            found = self._embed(
                networks, ct_slice, lung, lambda: features, clock, with_locations, check
            )
        box = None
        if with_locations:
            box = input_box(lung.lung_mask, ct_slice.pixel_spacing_mm, self.bundle.method)
        return EncodedSlice(
            ct_slice=ct_slice,
            lung_area_mm2=lung.area_mm2,
            lung=lung,
            features=found.features,
            embedding=found.embedding,
            timings_ms=clock.laps_ms,
            locations=found.locations,
            input_box=box,
        )

    def self_test(self) -> npt.NDArray[np.float32]:
        """Run all networks once on a made-up input.

        Returns
        -------
        ndarray
            float32 ``(d,)``, unit norm: the embedding of that input, the same on every provider.

        Raises
        ------
        ModelError
            A network fails on this provider or does not give a unit vector.
        """
        size = self.bundle.method.input_size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(1, 1, size, size)
        mean = (self.bundle.scaler.mean, 0.0)
        with_locations = self.bundle.explain is not None
        found = self._fused(
            self._networks, ramp, lambda: mean, _StageClock(), with_locations, never_stop
        )
        return found.embedding

    def _features(self, ct_slice: CtSlice, lung: LungMask) -> _Timed:
        """Radiomics features of a slice, and how long they took (ms)."""
        clock = _StageClock()
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = RadiomicsScratch()
        try:
            values = self._extractor.extract(
                ct_slice.pixels_hu, lung.lung_mask, ct_slice.pixel_spacing_mm, scratch=scratch
            ).values
        finally:
            # For the next slice, on whatever thread it comes: the pages are there already.
            self._scratches.append(scratch)
        clock.lap("radiomics")
        return values, clock.laps_ms["radiomics"]

    def _embed(
        self,
        networks: Networks,
        ct_slice: CtSlice,
        lung: LungMask,
        radiomics: Callable[[], _Timed],
        clock: _StageClock,
        with_locations: bool,
        check: StopCheck,
    ) -> _Embedded:
        image = model_input(
            ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung.lung_mask, self.bundle.method
        )
        clock.lap("model_input")
        return self._fused(networks, image[np.newaxis], radiomics, clock, with_locations, check)

    def _fused(
        self,
        networks: Networks,
        images: npt.NDArray[np.float32],
        radiomics: Callable[[], _Timed],
        clock: _StageClock,
        with_locations: bool,
        check: StopCheck,
    ) -> _Embedded:
        """Run the networks; ``radiomics`` is asked for its features when the backbone has run."""
        explain = networks.explain() if with_locations else None
        late: list[npt.NDArray[np.float64]] = []

        def standardized() -> npt.NDArray[np.float32]:
            clock.lap("backbone")
            features, clock.laps_ms["radiomics"] = radiomics()
            late.append(features)
            check()
            clock.restart()
            return self.bundle.scaler.transform(features)[np.newaxis]

        (embedding,), feature_map = networks.embed(images, standardized, with_map=with_locations)
        clock.lap("fusion")
        norm = float(np.linalg.norm(embedding))
        if not abs(norm - 1) <= _UNIT_NORM_TOLERANCE:  # also true for NaN
            raise ModelError(
                f"the fusion network gave a vector of norm {norm:.6g}, expected 1; the bundle is "
                "damaged or the execution provider computes wrongly (see ildsdk doctor)"
            )
        (features,) = late
        locations = None
        if explain is not None:
            if feature_map is None:
                feature_map = networks.feature_map(images)
                clock.lap("map_backbone")
            scaled = self.bundle.scaler.transform(features)[np.newaxis]
            locations = _locations(explain, feature_map, scaled, self.bundle.embedding_size)
            clock.lap("explain")
        return _Embedded(features, np.ascontiguousarray(embedding / np.float32(norm)), locations)


_Timed = tuple[npt.NDArray[np.float64], float]
"""Radiomics features of a slice, and how long they took (ms)."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Embedded:
    features: npt.NDArray[np.float64]
    embedding: npt.NDArray[np.float32]
    locations: npt.NDArray[np.float32] | None


class _StageClock:
    """Wall-clock milliseconds between laps."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Leave the time since the last lap out."""
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
