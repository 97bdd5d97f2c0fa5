"""``quantize`` and ``add-int8``: the int8 forms of a bundle's backbone."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, say, typed_errors
from export.quantization.settings import QuantizeSettings

_DEFAULTS = QuantizeSettings()
_SHARE = click.FloatRange(0, 1)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("prepared", type=FOLDER)
@click.argument("index", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=_DEFAULTS.methods,
    show_default=True,
    help="Calibration to try: minmax, entropy, mse or percentile-P; may be repeated.",
)
@click.option(
    "--min-top1-label",
    type=_SHARE,
    default=_DEFAULTS.min_top1_label,
    show_default=True,
    help="Least share of held-out queries whose best neighbor keeps its class.",
)
@click.option(
    "--min-overlap",
    type=_SHARE,
    default=_DEFAULTS.min_overlap,
    show_default=True,
    help="Least mean overlap of the first ten neighbors.",
)
@click.option(
    "--min-cosine",
    type=_SHARE,
    default=_DEFAULTS.min_cosine,
    show_default=True,
    help="Least cosine of an embedding to its float32 form.",
)
@click.option(
    "--min-median-cosine",
    type=_SHARE,
    default=_DEFAULTS.min_median_cosine,
    show_default=True,
    help="Least median of these cosines.",
)
@click.option(
    "--max-float-steps",
    default=_DEFAULTS.max_float_steps,
    show_default=True,
    help="So many of the most sensitive steps may stay in float32.",
)
@click.option(
    "--symmetric/--no-symmetric",
    "with_symmetric",
    default=_DEFAULTS.with_symmetric,
    show_default=True,
    help="Also make backbone-int8-symmetric.onnx, the form that TensorRT takes.",
)
@click.option(
    "--real-ct",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="DICOM folder; its slices are reported in a table of their own.",
)
@click.option(
    "--document",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the tables between the markers of this page.",
)
@typed_errors
def quantize(
    bundle: Path, prepared: Path, index: Path, out: Path, methods: tuple[str, ...],
    min_top1_label: float, min_overlap: float, min_cosine: float, min_median_cosine: float,
    max_float_steps: int, with_symmetric: bool, real_ct: Path | None, document: Path | None,
) -> None:  # fmt: skip
    """Make the int8 forms of BUNDLE's backbone in OUT, checked against float32.

    Calibrated and chosen on training cases of PREPARED, the set that the bundle was trained on;
    then its answers to the held-out cases are compared with those of float32 in INDEX, which was
    built with the bundle. OUT gets backbone-int8.onnx (with --symmetric also
    backbone-int8-symmetric.onnx) and int8.json, or none of them where a limit is broken.
    `add-int8` puts them into a bundle.
    """
    from export.dataset import load_slice_set
    from export.quantization.quantizing import quantize as run
    from export.quantization.report import markdown, write_document
    from ildsdk.bundle import Bundle

    settings = QuantizeSettings(
        methods=methods, min_top1_label=min_top1_label, min_overlap=min_overlap,
        min_cosine=min_cosine, min_median_cosine=min_median_cosine,
        max_float_steps=max_float_steps, with_symmetric=with_symmetric,
    )  # fmt: skip
    report = run(
        Bundle.open(bundle), load_slice_set(prepared), index, out, settings,
        real_ct=real_ct, say=say,
    )  # fmt: skip
    if document is not None:
        write_document(document, report)
    click.echo(markdown(report))


@click.command("add-int8")
@click.argument("bundle", type=FOLDER)
@click.argument("int8", type=FOLDER)
@click.argument("out", type=FOLDER)
@typed_errors
def add_int8(bundle: Path, int8: Path, out: Path) -> None:
    """Write BUNDLE anew in OUT with the int8 forms that `quantize` made in INT8.

    The bundle hash stays: indexes go on answering. int8 becomes the bundle's default precision.
    """
    from export.quantization.adding import add_int8 as run
    from ildsdk.bundle import Bundle

    made = run(Bundle.open(bundle), int8, out)
    click.echo(f"{out}: {made.bundle_hash}")
