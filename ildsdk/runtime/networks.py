"""The networks of one bundle, loaded on one provider and checked against its manifest."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError, ModelError
from ildsdk.runtime.cpu_features import cpu_features
from ildsdk.runtime.ort_session import OrtSession, open_session
from ildsdk.runtime.precision import RunPrecision, choose_precision, int8_backbone
from ildsdk.runtime.providers import choose_provider
from ildsdk.runtime.session import Axes, Session
from ildsdk.settings import Provider, RuntimeSettings

if TYPE_CHECKING:
    from ildsdk.runtime.device_session import DeviceChain


class Networks:
    """Backbone, fusion network and graph of activation maps. Safe to share between threads.

    Parameters
    ----------
    bundle : Bundle
    settings : RuntimeSettings
    n_threads : int
        Threads of one run.

    Attributes
    ----------
    backbone, fusion : Session
    provider : {"cpu", "cuda", "tensorrt"}
        That of all of them.
    precision : {"fp32", "int8", "fp16"}
        Arithmetic of the backbone.

    Raises
    ------
    ModelError
        The provider cannot run, or the models do not fit the bundle's manifest.
    ConfigError
        The precision asked for cannot run with this bundle on this provider.
    """

    def __init__(self, bundle: Bundle, settings: RuntimeSettings, n_threads: int) -> None:
        self._bundle = bundle
        self._n_threads = n_threads
        self.fusion: Session = open_session(bundle.fusion, settings, n_threads)
        self.provider = self.fusion.provider
        running = cast(Provider, self.provider)  # sessions of any engine know it as a plain name
        self._settings = dataclasses.replace(settings, provider=running)
        self.precision = choose_precision(
            settings.precision,
            self.provider,
            bundle_default=bundle.default_precision,
            has_int8=int8_backbone(bundle, self.provider) is not None,
            cpu=cpu_features(),
        )
        self.backbone = self._open_backbone(self.precision)
        # Opened when first asked for: the graph of activation maps and the backbone before it.
        self._explain: tuple[Session, Session] | None = None
        self._lock = threading.Lock()
        self._check_contract()
        self._chain = _chain_of(self.backbone, self.fusion)

    def embed(
        self,
        image: npt.NDArray[np.float32],
        radiomics: Callable[[], npt.NDArray[np.float32]],
        *,
        with_map: bool = False,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Run backbone and fusion network; on a GPU what passes between them stays there.

        The feature map of an 8-bit backbone is not close enough to draw activation maps from
        (docs/cold-start.md): the float32 one runs for it too (:meth:`feature_map`), so that maps
        do not depend on the precision.

        Parameters
        ----------
        image : ndarray
            float32 ``(1, 1, S, S)``.
        radiomics : callable
            Gives float32 ``(1, 102)``, standardised; called when the backbone has run, so that
            the features can be computed meanwhile.
        with_map : bool
            Also the feature map that activation maps are made of.

        Returns
        -------
        embedding : ndarray
            float32 ``(1, d)``.
        feature_map : ndarray or None
            float32 ``(1, q, h, w)``; None where the backbone in 8 bits runs, which gives none:
            :meth:`feature_map` makes it.

        Raises
        ------
        ModelError
            A network failed.
        ConfigError
            A map is asked for and the bundle has none.
        """
        map_backbone = self._explaining()[1] if with_map else None
        more = ["feature_map"] if map_backbone is self.backbone else []
        if self._chain is not None:
            found, *maps = self._chain.run_all(
                ["embedding", *more], {"image": image}, late=lambda: {"radiomics": radiomics()}
            )
        else:
            deep_features, *maps = self.backbone.run_all(["deep_features", *more], {"image": image})
            passed = {"deep_features": deep_features, "radiomics": radiomics()}
            found = self.fusion.run_all(["embedding"], passed)[0]
        return found, maps[0] if maps else None

    def feature_map(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Feature map of an image by the float32 backbone, where the one that runs gives none.

        Raises
        ------
        ModelError
            The network failed.
        ConfigError
            The bundle has no graph of activation maps.
        """
        return self._explaining()[1].run_all(["feature_map"], {"image": image})[0]

    def explain(self) -> Session:
        """Graph of activation maps, loaded and checked when first asked for.

        Raises
        ------
        ConfigError
            The bundle has none.
        ModelError
            It does not load, or does not fit the other two.
        """
        return self._explaining()[0]

    def _explaining(self) -> tuple[Session, Session]:
        """Graph of activation maps, and the backbone whose feature map it takes."""
        path = self._bundle.explain
        if path is None:
            raise ConfigError(
                f"bundle {self._bundle.name!r} has no activation maps (no explain.onnx): leave out "
                "--explain (or --maps), or take a bundle exported with maps; `ildsdk bundle info` "
                "tells which has them"
            )
        with self._lock:
            if self._explain is None:
                backbone = self.backbone
                if self.precision == "int8":
                    backbone = self._open_backbone("fp32")
                session = open_session(path, self._settings, self._n_threads)
                _check_explain_graph(session, backbone, self._bundle)
                self._explain = (session, backbone)
            return self._explain

    def _open_backbone(self, precision: RunPrecision) -> Session:
        bundle = self._bundle
        if precision == "fp32" and self.provider == "cpu":
            from ildsdk.runtime.model_cache import ModelCache
            from ildsdk.runtime.ort_optimized import open_optimized

            return open_optimized(
                bundle.backbone,
                bundle.checksums[bundle.backbone.name],
                self._n_threads,
                ModelCache.with_user_folder(self._settings.model_cache),
            )
        rounded = int8_backbone(bundle, self.provider) if precision == "int8" else None
        model = rounded or bundle.backbone
        # Not through the cache: of an 8-bit graph it would save 0.02 s (docs/cold-start.md).
        return open_session(model, self._settings, self._n_threads, precision=precision)

    def _check_contract(self) -> None:
        size = self._bundle.method.input_size
        n_features = len(self._bundle.feature_names)
        no_axes: dict[str, list[int] | None] = {"deep_features": None}
        expected: tuple[
            tuple[str, Session, dict[str, list[int] | None], dict[str, list[int] | None]], ...
        ] = (
            ("backbone.onnx", self.backbone, {"image": [1, size, size]}, no_axes),
            (
                "fusion.onnx",
                self.fusion,
                {**no_axes, "radiomics": [n_features]},
                {"embedding": [self._bundle.embedding_size]},
            ),
        )
        for file_name, session, inputs, outputs in expected:
            _check_shapes(file_name, "input", session.input_shapes, inputs)
            _check_shapes(file_name, "output", session.output_shapes, outputs)


def open_networks(bundle: Bundle, settings: RuntimeSettings, n_threads: int) -> Networks:
    """Load the networks of a bundle; provider ``"auto"`` takes a GPU only where they start on it.

    Raises
    ------
    ModelError, ConfigError
        As :class:`Networks`.
    """
    provider = choose_provider(settings.provider)
    try:
        return Networks(bundle, dataclasses.replace(settings, provider=provider), n_threads)
    except ModelError:
        if settings.provider != "auto" or provider == "cpu":
            raise
        return Networks(bundle, dataclasses.replace(settings, provider="cpu"), n_threads)


def _chain_of(backbone: Session, fusion: Session) -> DeviceChain | None:
    if isinstance(backbone, OrtSession):  # of the CPU: what chains devices need not be imported
        return None
    from ildsdk.runtime.device_session import chain_of

    return chain_of(backbone, fusion)


def _check_explain_graph(explain: Session, backbone: Session, bundle: Bundle) -> None:
    """Compare the axes that the graphs state; others show when they run."""
    _check_shapes("backbone.onnx", "output", backbone.output_shapes, {"feature_map": None})
    _check_shapes(
        "explain.onnx", "input", explain.input_shapes, {"radiomics": [len(bundle.feature_names)]}
    )
    made = backbone.output_shapes["feature_map"][1:]
    sides = [axis for axis in made[1:] if isinstance(axis, int)]
    places = [math.prod(sides) if len(sides) == len(made) - 1 else None]
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
    found: Mapping[str, Axes],
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
