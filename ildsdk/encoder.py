"""From one slice to its embedding: mask, radiomics, model input, networks.

Alone, a slice has all threads: radiomics runs while the backbone works. Among many, each slice has
one thread through all stages, which keeps every core busy (docs/pipeline.md).
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError, ModelError
from ildsdk.explain import SliceBox
from ildsdk.lung import segment_lung
from ildsdk.model_input import input_box, model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.records import CtSlice, LungMask
from ildsdk.runtime.session import Session, open_session
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import RuntimeSettings
from ildsdk.stopping import Check, never_stop

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
        Milliseconds of mask, radiomics, model_input, backbone, fusion; explain where that was
        asked for. Radiomics and the stages after it may have run side by side.
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


class _DeepFeatures(NamedTuple):
    """Output of the backbone: float32 ``(1, 2048)``, and ``(1, c, h, w)`` where asked for."""

    values: npt.NDArray[np.float32]
    feature_map: npt.NDArray[np.float32] | None


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
    n_threads : int
        The thread budget in force.

    Raises
    ------
    ModelError
        The provider cannot run, or the models do not fit the bundle's manifest.
    """

    def __init__(self, bundle: Bundle, settings: RuntimeSettings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.n_threads = settings.n_threads or available_cpus()
        self._backbone = open_session(bundle.backbone, settings, self.n_threads)
        self._fusion = open_session(bundle.fusion, settings, self.n_threads)
        self.provider = self._backbone.provider
        self._extractor = RadiomicsExtractor(engine=settings.radiomics_engine)
        self._explain: Session | None = None  # opened when first asked for
        self._lock = threading.Lock()
        self._scratches: collections.deque[RadiomicsScratch]
        self._scratches = collections.deque(maxlen=self.n_threads)
        self._narrow: tuple[Session, Session] | None = None  # opened for the first long study
        self._check_contract()

    def _check_contract(self) -> None:
        size = self.bundle.method.input_size
        n_features = len(self.bundle.feature_names)
        no_axes: dict[str, list[int] | None] = {"deep_features": None}
        expected: tuple[
            tuple[str, Session, dict[str, list[int] | None], dict[str, list[int] | None]], ...
        ] = (
            ("backbone.onnx", self._backbone, {"image": [1, size, size]}, no_axes),
            (
                "fusion.onnx",
                self._fusion,
                {**no_axes, "radiomics": [n_features]},
                {"embedding": [self.bundle.embedding_size]},
            ),
        )
        for file_name, session, inputs, outputs in expected:
            _check_shapes(file_name, "input", session.input_shapes, inputs)
            _check_shapes(file_name, "output", session.output_shapes, outputs)

    def check_explain(self) -> None:
        """Load the graph of activation maps and check that it fits the other two.

        Raises
        ------
        ConfigError
            The bundle has none.
        ModelError
            It does not load, or does not fit.
        """
        self._explain_session()

    def _explain_session(self) -> Session:
        path = self.bundle.explain
        if path is None:
            raise ConfigError(
                f"bundle {self.bundle.name!r} has no activation maps (no explain.onnx): leave out "
                "--explain (or --maps), or take a bundle exported with maps; `ildsdk bundle info` "
                "tells which has them"
            )
        with self._lock:
            if self._explain is None:
                session = open_session(path, self.settings, self.n_threads)
                _check_explain_graph(session, self._backbone, self.bundle)
                self._explain = session
            return self._explain

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
        on_cpu = dataclasses.replace(self.settings, provider="cpu")
        with self._lock:
            if self._narrow is None:
                backbone = open_session(self.bundle.backbone, on_cpu, 1)
                self._narrow = (backbone, open_session(self.bundle.fusion, on_cpu, 1))

    def encode(
        self,
        ct_slice: CtSlice,
        *,
        with_locations: bool = False,
        n_at_once: int = 1,
        check: Check = never_stop,
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
        clock = _StageClock()
        lung = segment_lung(
            ct_slice.pixels_hu,
            ct_slice.pixel_spacing_mm,
            min_area_mm2=self.bundle.method.min_lung_area_mm2,
        )
        clock.lap("mask")
        check()
        backbone, fusion = self._networks_for(n_at_once)
        if 2 * n_at_once <= self.n_threads:
            with ThreadPoolExecutor(1, thread_name_prefix="ildsdk-radiomics") as pool:
                radiomics = pool.submit(self._features, ct_slice, lung)
                deep = self._deep_features(backbone, ct_slice, lung, clock, with_locations)
                features, radiomics_ms = radiomics.result()
        else:
            features, radiomics_ms = self._features(ct_slice, lung)
            check()
            clock.restart()
            deep = self._deep_features(backbone, ct_slice, lung, clock, with_locations)
        check()
        clock.restart()
        embedding, locations = self._fuse(fusion, deep, features, clock)
        box = None
        if with_locations:
            box = input_box(lung.lung_mask, ct_slice.pixel_spacing_mm, self.bundle.method)
        return EncodedSlice(
            ct_slice=ct_slice,
            lung_area_mm2=lung.area_mm2,
            lung=lung,
            features=features,
            embedding=embedding,
            timings_ms={**clock.laps_ms, "radiomics": radiomics_ms},
            locations=locations,
            input_box=box,
        )

    def self_test(self) -> None:
        """Run all networks once on a made-up input.

        Raises
        ------
        ModelError
            A network fails on this provider or does not give a unit vector.
        """
        size = self.bundle.method.input_size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(1, 1, size, size)
        deep = self._run_backbone(self._backbone, ramp, self.bundle.explain is not None)
        self._fuse(self._fusion, deep, self.bundle.scaler.mean, _StageClock())

    def _networks_for(self, n_at_once: int) -> tuple[Session, Session]:
        """Backbone and fusion for a slice among ``n_at_once``."""
        if self._narrow is not None and n_at_once >= self.n_threads:
            return self._narrow
        return self._backbone, self._fusion

    def _features(self, ct_slice: CtSlice, lung: LungMask) -> tuple[npt.NDArray[np.float64], float]:
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

    def _deep_features(
        self,
        backbone: Session,
        ct_slice: CtSlice,
        lung: LungMask,
        clock: _StageClock,
        with_map: bool,
    ) -> _DeepFeatures:
        image = model_input(
            ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung.lung_mask, self.bundle.method
        )
        clock.lap("model_input")
        found = self._run_backbone(backbone, image[np.newaxis], with_map)
        clock.lap("backbone")
        return found

    def _run_backbone(
        self, backbone: Session, images: npt.NDArray[np.float32], with_map: bool
    ) -> _DeepFeatures:
        if with_map:
            self._explain_session()  # or refuse before the network runs
        names = ["deep_features", "feature_map"] if with_map else ["deep_features"]
        values, *maps = backbone.run_all(names, {"image": images})
        return _DeepFeatures(values, maps[0] if maps else None)

    def _fuse(
        self,
        fusion: Session,
        deep: _DeepFeatures,
        features: npt.NDArray[np.float64],
        clock: _StageClock,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Embedding ``(d,)``, and location vectors where there is a feature map."""
        radiomics = self.bundle.scaler.transform(features)[np.newaxis]
        embedding = fusion.run("embedding", {"deep_features": deep.values, "radiomics": radiomics})[
            0
        ]
        clock.lap("fusion")
        norm = float(np.linalg.norm(embedding))
        if not abs(norm - 1) <= _UNIT_NORM_TOLERANCE:  # also true for NaN
            raise ModelError(
                f"the fusion network gave a vector of norm {norm:.6g}, expected 1; the bundle is "
                "damaged or the execution provider computes wrongly (see ildsdk doctor)"
            )
        locations = None
        if deep.feature_map is not None:
            locations = _locations(
                self._explain_session(), deep.feature_map, radiomics, self.bundle.embedding_size
            )
            clock.lap("explain")
        return np.ascontiguousarray(embedding / np.float32(norm)), locations


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
    found = explain.run("locations", {"feature_map": feature_map, "radiomics": radiomics})
    height, width = feature_map.shape[2:]
    if found.shape != (1, height * width, embedding_size) or not np.isfinite(found).all():
        raise ModelError(
            f"explain.onnx gave an array {found.shape} (or values that are not finite), expected "
            f"{(1, height * width, embedding_size)}; the bundle is damaged"
        )
    return np.ascontiguousarray(found.reshape(height, width, embedding_size))


def _check_explain_graph(explain: Session, backbone: Session, bundle: Bundle) -> None:
    """Compare the axes that the graphs state; others show when they run."""
    _check_shapes("backbone.onnx", "output", backbone.output_shapes, {"feature_map": None})
    _check_shapes(
        "explain.onnx", "input", explain.input_shapes, {"radiomics": [len(bundle.feature_names)]}
    )
    made = backbone.output_shapes["feature_map"][1:]
    places: list[int | str | None] = [None]
    if all(isinstance(axis, int) for axis in made[1:]):
        places = [int(np.prod([int(axis) for axis in made[1:]]))]
    for kind, name, shapes, expected in (
        ("input", "feature_map", explain.input_shapes, made),
        ("output", "locations", explain.output_shapes, [*places, bundle.embedding_size]),
    ):
        if name not in shapes:
            raise ModelError(f"explain.onnx has {kind}s {sorted(shapes)}, expected {name!r}")
        found = shapes[name][1:]
        if len(found) != len(expected) or any(
            isinstance(one, int) and isinstance(other, int) and one != other
            for one, other in zip(found, expected, strict=True)
        ):
            raise ModelError(
                f"explain.onnx {kind} {name!r} has shape {shapes[name]}, the other models ask for "
                f"(batch, {', '.join(map(str, expected))})"
            )


def _check_shapes(
    file_name: str,
    kind: str,
    found: dict[str, list[int | str | None]],
    expected: dict[str, list[int] | None],
) -> None:
    """Compare names and all axes behind the batch axis; None leaves the axes free."""
    for name, axes in expected.items():
        if name not in found:
            raise ModelError(f"{file_name} has {kind}s {sorted(found)}, expected {name!r}")
        if axes is not None and list(found[name][1:]) != axes:
            raise ModelError(
                f"{file_name} {kind} {name!r} has shape {found[name]}, the manifest asks for "
                f"(batch, {', '.join(map(str, axes))})"
            )
