"""A model bundle: the folder of models and settings that belong together.

``BUNDLE/manifest.json`` (docs/bundle-format.md) names the model files with size and SHA-256, the
result-changing settings, the radiomics features and their scaler, and where the model comes from.
Opening checks all of it; what does not fit together is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ildsdk._version import __version__
from ildsdk.errors import ConfigError, IldError, ModelError
from ildsdk.radiomics.names import FEATURE_NAMES, FEATURE_SET_VERSION
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings, settings_from_mapping

BUNDLE_SCHEMA = "ildsdk.bundle/2"
_SCHEMA_V1 = "ildsdk.bundle/1"
PIPELINE_VERSION = "ildsdk.pipeline/1"
"""Changes whenever HU, lung mask or model input of a slice change: embeddings made before and
after such a change do not compare, and an old bundle or index must not open silently."""
MANIFEST_NAME = "manifest.json"
MODEL_FILES = ("backbone.onnx", "fusion.onnx")
EXPLAIN_NAME = "explain.onnx"
CARD_NAME = "model_card.md"
_OPTIONAL_FILES = (EXPLAIN_NAME, CARD_NAME)  # change no embedding: not part of the bundle hash
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_MAX_CARD_BYTES = 256 * 1024
_MAX_MODEL_BYTES = 2 * 1024**3  # the limit of an ONNX file without external data


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

    @property
    def backbone(self) -> Path:
        """ONNX file: ``image`` (n, 1, S, S) -> ``deep_features`` (n, 2048)."""
        return self.folder / MODEL_FILES[0]

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

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read and check a bundle folder.

        Raises
        ------
        ModelError
            No bundle, another or newer schema, a damaged or missing file, or parts that do
            not fit together.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        try:
            bundle = _from_manifest(folder, manifest)
        except ModelError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IldError) as error:
            raise ModelError(
                f"bundle manifest is incomplete or malformed ({type(error).__name__}: {error}); "
                "take the bundle again from where it was made"
            ) from error
        _check_files(folder, manifest["files"])
        return bundle


def write_bundle(
    folder: str | Path,
    *,
    name: str,
    method: MethodSettings,
    backbone: str | Path,
    fusion: str | Path,
    scaler: FeatureScaler,
    labels: Sequence[str],
    embedding_size: int,
    gem_p: float,
    is_synthetic: bool,
    provenance: Mapping[str, Any],
    figures: Mapping[str, Any],
    license: str,
    intended_use: str,
    explain: str | Path | None = None,
    model_card: str | None = None,
) -> Bundle:
    """Assemble a bundle folder from its parts and open it, which checks it.

    The folder must not exist yet: a bundle is never changed in place. It is put together
    beside its final place and renamed, so a failure leaves nothing half-written.

    Parameters
    ----------
    backbone, fusion : path
        ONNX files as in docs/bundle-format.md; all parameters not named here are attributes
        of :class:`Bundle`.
    explain : path, optional
        ONNX file of activation maps; then the backbone has the output ``feature_map`` too.
    model_card : str, optional
        Markdown.

    Raises
    ------
    ModelError
        The folder exists, or the parts do not fit together.
    """
    folder = Path(folder)
    if folder.exists():
        raise ModelError(
            f"bundle folder {folder.name!r} exists already; bundles are not overwritten"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed out of a temporary folder that goes away whatever happens.
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder.parent) as parent:
        draft = Path(parent) / "bundle"
        draft.mkdir()
        sources = dict(zip(MODEL_FILES, (backbone, fusion), strict=True))
        if explain is not None:
            sources[EXPLAIN_NAME] = explain
        for file_name, source in sources.items():
            shutil.copyfile(source, draft / file_name)
        if model_card is not None:
            (draft / CARD_NAME).write_text(model_card, encoding="utf-8", newline="\n")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(draft.iterdir())
        }
        manifest: dict[str, Any] = {
            "schema": BUNDLE_SCHEMA,
            "pipeline_version": PIPELINE_VERSION,
            "name": name,
            "bundle_hash": "",
            "created_with": f"ildsdk {__version__}",
            "is_synthetic": is_synthetic,
            "license": license,
            "intended_use": intended_use,
            "labels": list(labels),
            "method": dataclasses.asdict(method),
            "embedding_size": embedding_size,
            "gem_p": gem_p,
            "feature_set_version": FEATURE_SET_VERSION,
            "feature_names": list(FEATURE_NAMES),
            "scaler": scaler.to_dict(),
            "files": files,
            "figures": dict(figures),
            "provenance": dict(provenance),
        }
        manifest["bundle_hash"] = _bundle_hash(manifest)
        (draft / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        Bundle.open(draft)
        draft.rename(folder)
    return Bundle.open(folder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ModelError(
            f"{folder.name!r} is not a model bundle: it has no {MANIFEST_NAME}; expected a folder "
            "written by `python -m export bundle`"
        )
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"bundle manifest cannot be read: {error.strerror}") from error
    if len(content) > _MAX_MANIFEST_BYTES:
        raise ModelError(f"bundle manifest has more than {_MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"bundle manifest is not JSON: {error}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema not in (BUNDLE_SCHEMA, _SCHEMA_V1):
        family, _, version = str(schema).partition("/")
        if family == BUNDLE_SCHEMA.partition("/")[0] and version.isdigit():
            raise ModelError(
                f"bundle has schema {schema!r}, this ildsdk {__version__} reads {BUNDLE_SCHEMA!r}; "
                "update ildsdk or take a bundle made for this version"
            )
        raise ModelError(f"bundle manifest has schema {schema!r}, expected {BUNDLE_SCHEMA!r}")
    return manifest  # type: ignore[no-any-return]


def _from_manifest(folder: Path, manifest: dict[str, Any]) -> Bundle:
    feature_names = tuple(manifest["feature_names"])
    if manifest["feature_set_version"] != FEATURE_SET_VERSION or feature_names != FEATURE_NAMES:
        raise ModelError(
            f"bundle was trained on feature set {manifest['feature_set_version']!r} with "
            f"{len(feature_names)} features, this ildsdk computes {FEATURE_SET_VERSION!r} with "
            f"{len(FEATURE_NAMES)}"
        )
    scaler = FeatureScaler.from_dict(manifest["scaler"])
    if scaler.mean.shape != (len(feature_names),):
        raise ModelError(
            f"bundle scaler has {scaler.mean.size} values for {len(feature_names)} features"
        )
    optional = () if manifest["schema"] == _SCHEMA_V1 else _OPTIONAL_FILES
    listed = set(manifest["files"])
    if not set(MODEL_FILES) <= listed <= {*MODEL_FILES, *optional}:
        more = f" and optionally {sorted(optional)}" if optional else ""
        raise ModelError(
            f"bundle lists files {sorted(listed)}, expected {sorted(MODEL_FILES)}{more}"
        )
    if manifest["pipeline_version"] != PIPELINE_VERSION:
        raise ModelError(
            f"bundle was trained with slice preparation {manifest['pipeline_version']!r}, this "
            f"ildsdk prepares slices by {PIPELINE_VERSION!r}; take a bundle made for this version"
        )
    for name, file in manifest["files"].items():
        if set(file) != {"bytes", "sha256"}:
            raise ModelError(f"bundle file {name} is described by {sorted(file)}")
    embedding_size = manifest["embedding_size"]
    if not isinstance(embedding_size, int) or not 2 <= embedding_size <= 4096:
        raise ModelError(f"bundle embedding_size is {embedding_size!r}, expected 2 to 4096")
    method = settings_from_mapping(MethodSettings, manifest["method"])
    labels = tuple(str(label) for label in manifest["labels"])
    bundle_hash = _bundle_hash(manifest)
    if manifest["bundle_hash"] != bundle_hash:
        raise ModelError(
            f"bundle manifest says hash {str(manifest['bundle_hash'])[:12]}, its contents give "
            f"{bundle_hash[:12]}: the manifest was changed after it was made"
        )
    return Bundle(
        folder=folder,
        name=str(manifest["name"]),
        bundle_hash=bundle_hash,
        method=method,
        scaler=scaler,
        feature_names=feature_names,
        labels=labels,
        embedding_size=embedding_size,
        gem_p=float(manifest["gem_p"]),
        is_synthetic=bool(manifest["is_synthetic"]),
        provenance=dict(manifest["provenance"]),
        figures=dict(manifest["figures"]),
        license=str(manifest["license"]),
        intended_use=str(manifest["intended_use"]),
        explain_sha256=str(manifest["files"][EXPLAIN_NAME]["sha256"])
        if EXPLAIN_NAME in listed
        else None,
        has_model_card=CARD_NAME in listed,
    )


def _check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    # An ONNX graph may keep weights in files beside it, which no checksum here would cover.
    strangers = {path.name for path in folder.iterdir()} - {MANIFEST_NAME, *files}
    if strangers:
        raise ModelError(
            f"bundle folder holds {len(strangers)} file(s) its manifest does not name; expected "
            f"{', '.join([MANIFEST_NAME, *files])} and nothing else"
        )
    for file_name, expected in files.items():
        path = folder / file_name
        if not path.is_file():
            raise ModelError(f"bundle file {file_name} is missing")
        n_bytes = path.stat().st_size
        if n_bytes != expected["bytes"] or n_bytes > _MAX_MODEL_BYTES:
            raise ModelError(
                f"bundle file {file_name} has {n_bytes} bytes, the manifest says "
                f"{expected['bytes']}; it is damaged or was replaced: take the bundle again"
            )
        digest = _sha256(path)
        if digest != expected["sha256"]:
            raise ModelError(
                f"bundle file {file_name} has SHA-256 {digest[:12]}, the manifest says "
                f"{str(expected['sha256'])[:12]}; it is damaged or was replaced: take the bundle "
                "again"
            )
    if CARD_NAME in files:
        _check_card(folder / CARD_NAME)


def _check_card(path: Path) -> None:
    n_bytes = path.stat().st_size
    if n_bytes > _MAX_CARD_BYTES:
        raise ModelError(f"{CARD_NAME} has {n_bytes} bytes, expected at most {_MAX_CARD_BYTES}")
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{CARD_NAME} is not UTF-8 text") from error


def _bundle_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of what changes an embedding, and of nothing else."""
    keys = (
        "pipeline_version", "is_synthetic", "labels", "method", "embedding_size", "gem_p",
        "feature_set_version", "feature_names", "scaler",
    )  # fmt: skip
    hashed = {key: manifest[key] for key in keys}
    hashed["schema"] = _SCHEMA_V1  # the same models have the same hash in every version
    hashed["files"] = {name: manifest["files"][name] for name in MODEL_FILES}
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
