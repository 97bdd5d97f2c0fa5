"""``quantize``: the int8 form of a bundle's backbone, or a typed error and no file."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.compress import compress_weights
from export.dataset import SliceSet
from export.quantization.agreement import ALL, Agreement, Answers, QuerySet, agreement
from export.quantization.calibration import calibration_images, split_rows
from export.quantization.choosing import Choice, Chooser
from export.quantization.embedding import deep_features, embed
from export.quantization.qdq import count_integer_steps
from export.quantization.queries import dicom_queries, prepared_queries
from export.quantization.references import refer_to
from export.quantization.saturation import measure_saturation
from export.quantization.settings import QuantizeSettings
from export.whole_files import write_json, write_whole
from ildsdk.bundle import Bundle
from ildsdk.bundle.layout import BACKBONE_INT8_NAME, BACKBONE_NAME
from ildsdk.errors import ConfigError, ModelError
from ildsdk.index import Index

REPORT_NAME = "int8.json"
SCHEMA = "export.int8/1"
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
    """Write ``backbone-int8.onnx`` and ``int8.json`` into a folder, if the limits hold.

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
    real_ct : Path, optional
        DICOM folder; its slices are a table of their own and decide nothing.

    Returns
    -------
    dict
        What stands in ``int8.json``.

    Raises
    ------
    ModelError
        The answers of the int8 form agree less with those of float32 than the limits ask for;
        nothing is written.
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
    index = Index.open(index_folder, expected_bundle_hash=bundle.bundle_hash)
    model = compress_weights(onnx.load(bundle.backbone, load_external_data=False))
    choosing = prepared_queries(slices, rows.choosing, bundle)
    chooser = Chooser(
        model, bundle.backbone, bundle.fusion, choosing,
        Answers(index, choosing, settings.top_n), settings, say,
    )  # fmt: skip
    choice = chooser.choose(calibration_images(slices, rows.calibration, settings))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=out) as folder:
        graph = _store(choice, bundle, Path(folder))
        say("answers to held-out queries")
        held_out = _compare(
            bundle, graph, index, prepared_queries(slices, rows.held_out, bundle), settings
        )
        check_limits(held_out, settings)
        on_real = None
        if real_ct is not None:
            say("answers to real CT")
            queries = dicom_queries(real_ct, bundle)
            on_real = {
                "n_studies": len(set(queries.case_ids)),
                **dataclasses.asdict(_compare(bundle, graph, index, queries, settings)[ALL]),
            }
        say("saturation without VNNI")
        images = [
            choosing.images[i] for i in np.linspace(0, len(choosing) - 1, _N_SATURATION, dtype=int)
        ]
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
            "bytes": graph.stat().st_size,
            "convolutions": count_integer_steps(choice.graph),
            **choice.facts(),
            "held_out": {name: dataclasses.asdict(one) for name, one in held_out.items()},
            "real_ct": on_real,
            "saturation": [
                dataclasses.asdict(one)
                for one in measure_saturation(choice.graph, images, every=_EVERY)
            ],
            "machine": _machine(),
        }
        write_whole(out / BACKBONE_INT8_NAME, graph.read_bytes())
    write_json(out / REPORT_NAME, report)  # last: its presence says that the graph is there
    return report


def check_limits(held_out: Mapping[str, Agreement], settings: QuantizeSettings) -> None:
    """Require the agreement that the settings ask for, over all held-out queries.

    Raises
    ------
    ModelError
        A figure is below its limit (or not a number).
    """
    found = held_out[ALL]
    pairs = (
        ("share of queries whose best neighbor keeps its class", found.top1_label,
         settings.min_top1_label),
        (f"mean overlap of the first {settings.top_n} neighbors", found.top_n_overlap,
         settings.min_overlap),
        ("least cosine of embeddings", found.cosine_min, settings.min_cosine),
        ("median cosine of embeddings", found.cosine_median, settings.min_median_cosine),
    )  # fmt: skip
    broken = [
        f"{name} {value:.5f}, at least {least} expected"
        for name, value, least in pairs
        if not value >= least
    ]
    if broken:
        raise ModelError(
            f"int8 and float32 answer {found.n_queries} held-out queries too differently: "
            f"{'; '.join(broken)}. Nothing was written; calibrate on more slices, allow more steps "
            "in float (--max-float-steps), or leave the bundle in float32"
        )


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle's manifest keeps of a report."""
    settings = report["settings"]
    keys = (
        "is_synthetic", "method", "is_corrected", "float_steps", "convolutions", "rows", "held_out",
        "real_ct", "machine",
    )  # fmt: skip
    limits = ("min_top1_label", "min_overlap", "min_cosine", "min_median_cosine", "top_n")
    return {
        **{key: report[key] for key in keys},
        "limits": {name: settings[name] for name in limits},
    }


def load_report(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Report of a finished folder of this bundle.

    Raises
    ------
    ConfigError
        Not finished, or made of another bundle.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        raise ConfigError(
            f"{folder.name!r} has no {REPORT_NAME}: run `python -m export quantize` to the end"
        )
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if report.get("bundle_hash") != bundle.bundle_hash:
        raise ConfigError(
            f"{folder.name!r} was made of bundle {str(report.get('bundle_hash'))[:12]}, this one "
            f"is {bundle.bundle_hash[:12]}; run `python -m export quantize` on this one"
        )
    return report


def _store(choice: Choice, bundle: Bundle, folder: Path) -> Path:
    """The graph as it will lie in the bundle, beside the file that it refers to."""
    shutil.copyfile(bundle.backbone, folder / BACKBONE_NAME)
    stored = onnx.ModelProto()
    stored.CopyFrom(choice.graph)
    refer_to(stored, BACKBONE_NAME, bundle.backbone.read_bytes())
    path = folder / BACKBONE_INT8_NAME
    path.write_bytes(stored.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    return path


def _compare(
    bundle: Bundle, graph: Path, index: Index, queries: QuerySet, settings: QuantizeSettings
) -> dict[str, Agreement]:
    reference, other = (
        embed(
            bundle.fusion,
            deep_features(form, queries.images, n_threads=settings.n_threads),
            queries.radiomics,
        )
        for form in (bundle.backbone, graph)
    )
    return agreement(Answers(index, queries, settings.top_n), queries, reference, other)


def _machine() -> dict[str, str]:
    (runtime,) = {*packages_distributions()["onnxruntime"]}
    return {"architecture": platform.machine(), runtime: version(runtime)}
