"""A bundle with int8 forms: the old bundle's parts and hash, one or two more files."""

from __future__ import annotations

from pathlib import Path

from export.quantization.quantizing import load_report, summary
from ildsdk.bundle import Bundle, write_bundle
from ildsdk.bundle.layout import BACKBONE_INT8_NAME, BACKBONE_INT8_SYMMETRIC_NAME
from ildsdk.errors import ModelError


def add_int8(bundle: Bundle, int8_folder: Path, out: Path) -> Bundle:
    """Write the bundle anew with the int8 forms of :func:`quantize` and int8 as its default.

    Raises
    ------
    ConfigError
        The folder is not finished, or was made of another bundle.
    ModelError
        ``out`` exists, or the parts do not fit together.
    """
    report = load_report(int8_folder, bundle)
    symmetric = None
    if report["symmetric"] is not None:
        symmetric = int8_folder / BACKBONE_INT8_SYMMETRIC_NAME
    made = write_bundle(
        out,
        name=bundle.name,
        method=bundle.method,
        backbone=bundle.backbone,
        fusion=bundle.fusion,
        scaler=bundle.scaler,
        labels=bundle.labels,
        embedding_size=bundle.embedding_size,
        gem_p=bundle.gem_p,
        is_synthetic=bundle.is_synthetic,
        provenance=bundle.provenance,
        figures=bundle.figures,
        license=bundle.license,
        intended_use=bundle.intended_use,
        backbone_int8=int8_folder / BACKBONE_INT8_NAME,
        backbone_int8_symmetric=symmetric,
        # The file exists only where its limits were kept.
        default_precision="int8",
        int8_agreement=summary(report),
        explain=bundle.explain,
        model_card=bundle.model_card(),
    )
    if made.bundle_hash != bundle.bundle_hash:
        raise ModelError(
            f"the bundle with int8 has hash {made.bundle_hash[:12]}, without it "
            f"{bundle.bundle_hash[:12]}: indexes would no longer answer to it"
        )
    return made
