"""``quantize``: the int8 forms of a bundle's backbone, or a typed error and no file."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np

from export.dataset import SliceSet
from export.quantization.calibration import calibration_images, split_rows
from export.quantization.forms import FOR_CPU, FOR_TENSORRT, FormMaker
from export.quantization.queries import dicom_queries, prepared_queries
from export.quantization.saturation import measure_saturation
from export.quantization.settings import QuantizeSettings
from export.whole_files import write_json, write_whole
from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError
from ildsdk.index import Index

REPORT_NAME = "int8.json"
SCHEMA = "export.int8/2"
_N_SATURATION, _EVERY = 4, 4

Say = Callable[[str], None]


def quantize(
    bundle: Bundle,
    slices: SliceSet,
    index_folder: Path,
    out: Path,
    settings: QuantizeSettings,
    *,
    real_ct: Path | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write the 8-bit graphs and ``int8.json`` into a folder, if the limits hold.

    ``backbone-int8.onnx`` is for CPUs, ``backbone-int8-symmetric.onnx`` for TensorRT; calibrated
    on the same slices, kept within the same limits.

    Parameters
    ----------
    bundle : Bundle
        Its backbone is quantised; held-out and training cases are those of its provenance.
    slices : SliceSet
        The prepared set that the bundle was trained on.
    index_folder : Path
        Index built with the bundle in float32, against which answers are compared.
    out : Path
        Made if missing.
    settings : QuantizeSettings
    real_ct : Path, optional
        DICOM folder; its slices are a table of their own and decide nothing.

    Returns
    -------
    dict
        What stands in ``int8.json``.

    Raises
    ------
    ModelError
        The answers of a form agree less with those of float32 than the limits ask for; nothing
        is written.
    ConfigError
        The prepared set is not the bundle's.
    IndexFileError
        The index was built with another bundle.
    """
    if slices.method != bundle.method:
        raise ConfigError(
            "the prepared set was made with other settings than the bundle "
            f"({slices.method.input_size} and {bundle.method.input_size} px); give the folder "
            "that was given to train"
        )
    rows = split_rows(slices, bundle, settings)
    maker = FormMaker(
        bundle=bundle,
        index=Index.open(index_folder, expected_bundle_hash=bundle.bundle_hash),
        calibration=calibration_images(slices, rows.calibration, settings),
        choosing=prepared_queries(slices, rows.choosing, bundle),
        held_out=prepared_queries(slices, rows.held_out, bundle),
        real_ct=None if real_ct is None else dicom_queries(real_ct, bundle),
        settings=settings,
        say=say,
    )
    for_cpu = maker.make(FOR_CPU)
    for_tensorrt = maker.make(FOR_TENSORRT) if settings.with_symmetric else None
    say("saturation without VNNI")
    choosing = maker.choosing.images
    places = np.linspace(0, len(choosing) - 1, _N_SATURATION, dtype=int)
    saturation = measure_saturation(
        for_cpu.choice.graph, [choosing[place] for place in places], every=_EVERY
    )
    report = {
        "schema": SCHEMA,
        "bundle_hash": bundle.bundle_hash,
        "is_synthetic": bundle.is_synthetic,
        "settings": dataclasses.asdict(settings),
        "rows": {
            "calibration": int(rows.calibration.size),
            "choosing": int(rows.choosing.size),
            "held_out": int(rows.held_out.size),
        },
        **for_cpu.facts(),
        "symmetric": None if for_tensorrt is None else for_tensorrt.facts(),
        "saturation": [dataclasses.asdict(one) for one in saturation],
        "machine": _machine(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / FOR_CPU.file_name, for_cpu.content)
    if for_tensorrt is not None:
        write_whole(out / FOR_TENSORRT.file_name, for_tensorrt.content)
    write_json(out / REPORT_NAME, report)  # last: its presence says that the graphs are there
    return report


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle's manifest keeps of a report."""
    settings = report["settings"]
    of_form = ("method", "is_corrected", "float_steps", "convolutions", "held_out", "real_ct")
    limits = ("min_top1_label", "min_overlap", "min_cosine", "min_median_cosine", "top_n")
    symmetric = report["symmetric"]
    return {
        **{key: report[key] for key in ("is_synthetic", *of_form, "rows", "machine")},
        "symmetric": None if symmetric is None else {key: symmetric[key] for key in of_form},
        "limits": {name: settings[name] for name in limits},
    }


def load_report(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Report of a finished folder of this bundle.

    Raises
    ------
    ConfigError
        Not finished, made by another version or of another bundle.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        raise ConfigError(
            f"{folder.name!r} has no {REPORT_NAME}: run `python -m export quantize` to the end"
        )
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if report.get("schema") != SCHEMA:
        raise ConfigError(
            f"{folder.name!r} was made by another version (schema {report.get('schema')!r}, "
            f"expected {SCHEMA!r}); delete it and run `python -m export quantize` again"
        )
    if report.get("bundle_hash") != bundle.bundle_hash:
        raise ConfigError(
            f"{folder.name!r} was made of bundle {str(report.get('bundle_hash'))[:12]}, this one "
            f"is {bundle.bundle_hash[:12]}; run `python -m export quantize` on this one"
        )
    return report


def _machine() -> dict[str, str]:
    (runtime,) = {*packages_distributions()["onnxruntime"]}
    return {"architecture": platform.machine(), runtime: version(runtime)}
