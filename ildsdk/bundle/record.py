"""An opened, checked bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ildsdk.bundle.files import check_files
from ildsdk.bundle.layout import (
    BACKBONE_INT8_NAME,
    BACKBONE_INT8_SYMMETRIC_NAME,
    CARD_NAME,
    EXPLAIN_NAME,
    MODEL_FILES,
    StoredPrecision,
)
from ildsdk.bundle.manifest import fields_of, read_manifest
from ildsdk.errors import ConfigError, IldError, ModelError
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked model bundle.

    Attributes
    ----------
    folder : Path
    name : str
    bundle_hash : str
        SHA-256 (hex) over everything that changes an embedding: method settings, model
        files, feature list, scaler, sizes. An index remembers the hash it was built with.
    method : MethodSettings
    scaler : FeatureScaler
    feature_names : tuple of str
    labels : tuple of str
        Diagnoses the model was trained on.
    embedding_size : int
    gem_p : float
        Exponent of the generalised mean (Chen et al. 2025, eq. 1), for information: it is
        part of the backbone graph.
    is_synthetic : bool
        True where the model was trained on phantom (synthetic) CT.
    provenance, figures : dict
        Training provenance and measured figures, for reading.
    license, intended_use : str
    explain_sha256 : str or None
        SHA-256 (hex) of the graph of activation maps; None for a bundle without maps.
    has_model_card : bool
    checksums : dict
        SHA-256 (hex) of each file but the manifest, by name.
    default_precision : {"fp32", "int8"}
        Form of the backbone that a CPU with the instructions for it should run: int8 only
        where its answers were measured to agree with those of float32.
    int8_agreement : dict or None
        What was measured of ``backbone-int8.onnx`` (and under ``"symmetric"`` of
        ``backbone-int8-symmetric.onnx``) against ``backbone.onnx``, for reading; None for a bundle
        without it.
    """

    folder: Path
    name: str
    bundle_hash: str
    method: MethodSettings
    scaler: FeatureScaler
    feature_names: tuple[str, ...]
    labels: tuple[str, ...]
    embedding_size: int
    gem_p: float
    is_synthetic: bool
    provenance: dict[str, Any]
    figures: dict[str, Any]
    license: str
    intended_use: str
    explain_sha256: str | None = None
    has_model_card: bool = False
    checksums: dict[str, str] = dataclasses.field(default_factory=dict)
    default_precision: StoredPrecision = "fp32"
    int8_agreement: dict[str, Any] | None = None

    @property
    def backbone(self) -> Path:
        """ONNX file: ``image`` (n, 1, S, S) -> ``deep_features`` (n, 2048)."""
        return self.folder / MODEL_FILES[0]

    @property
    def backbone_int8(self) -> Path | None:
        """ONNX file with the inputs and outputs of :attr:`backbone`, computed in int8.

        For CPUs: unsigned activations with zero points. It reads its weights out of
        ``backbone.onnx`` and must be opened by this path, not from memory.
        """
        return self._optional(BACKBONE_INT8_NAME)

    @property
    def backbone_int8_symmetric(self) -> Path | None:
        """The same for TensorRT: signed activations, every zero point 0."""
        return self._optional(BACKBONE_INT8_SYMMETRIC_NAME)

    @property
    def fusion(self) -> Path:
        """ONNX file: ``deep_features``, ``radiomics`` (n, 102) -> ``embedding`` (n, d)."""
        return self.folder / MODEL_FILES[1]

    @property
    def explain(self) -> Path | None:
        """ONNX file: ``feature_map`` (n, q, h, w), ``radiomics`` -> ``locations`` (n, h w, d)."""
        return None if self.explain_sha256 is None else self.folder / EXPLAIN_NAME

    def model_card(self) -> str | None:
        """Text of the model card (Markdown), None for a bundle without one."""
        if not self.has_model_card:
            return None
        return (self.folder / CARD_NAME).read_text(encoding="utf-8")

    @property
    def held_out_threshold(self) -> float:
        """Threshold of "no similar case" as measured on the cases held out of training.

        Raises
        ------
        ConfigError
            The bundle's figures hold none.
        """
        try:
            threshold = float(self.figures["systems"]["fusion"]["no_match_threshold"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"bundle {self.name!r} holds no threshold measured on held-out cases; leave the "
                "option out to measure one on the index, or evaluate the bundle before it is made"
            ) from error
        if not -1 <= threshold <= 1:
            raise ConfigError(
                f"bundle {self.name!r} holds the threshold {threshold}, expected a cosine"
            )
        return threshold

    def _optional(self, name: str) -> Path | None:
        return self.folder / name if name in self.checksums else None

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read and check a bundle folder.

        Raises
        ------
        ModelError
            No bundle, another or newer schema, a damaged or missing file, a graph that refers to
            data outside the bundle, or parts that do not fit together.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            bundle = cls(folder=folder, **fields_of(manifest))
        except ModelError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IldError) as error:
            raise ModelError(
                f"bundle manifest is incomplete or malformed ({type(error).__name__}: {error}); "
                "take the bundle again from where it was made"
            ) from error
        check_files(folder, manifest["files"])
        return bundle
