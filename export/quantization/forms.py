"""One 8-bit form of a backbone: chosen, stored by reference, its answers compared with float32."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from export.compress import compress_weights
from export.quantization.agreement import ALL, Agreement, Answers, QuerySet, agreement
from export.quantization.choosing import Choice, Chooser
from export.quantization.embedding import deep_features, embed
from export.quantization.qdq import count_integer_steps
from export.quantization.references import refer_to
from export.quantization.settings import QuantizeSettings
from ildsdk.bundle import Bundle
from ildsdk.bundle.layout import BACKBONE_INT8_NAME, BACKBONE_INT8_SYMMETRIC_NAME, BACKBONE_NAME
from ildsdk.errors import ModelError
from ildsdk.index import Index


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A kind of 8-bit graph.

    Attributes
    ----------
    name : str
        For messages.
    file_name : str
    symmetric : bool
        As in :func:`~export.quantization.qdq.to_qdq`.
    way_out : str
        What to do where its answers differ too much.
    """

    name: str
    file_name: str
    symmetric: bool
    way_out: str


FOR_CPU = Form(
    name="int8",
    file_name=BACKBONE_INT8_NAME,
    symmetric=False,
    way_out="leave the bundle in float32",
)
FOR_TENSORRT = Form(
    name="symmetric int8",
    file_name=BACKBONE_INT8_SYMMETRIC_NAME,
    symmetric=True,
    way_out="make none for TensorRT (--no-symmetric)",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MadeForm:
    """A form whose answers keep the limits.

    Attributes
    ----------
    content : bytes
        ONNX file that takes its weights from ``backbone.onnx`` beside it.
    choice : Choice
    held_out : mapping of str to Agreement
        With float32, over all held-out queries and for each class.
    on_real : dict or None
        The same on real CT, where there was any, and the number of its studies.
    """

    content: bytes
    choice: Choice
    held_out: Mapping[str, Agreement]
    on_real: dict[str, Any] | None

    def facts(self) -> dict[str, Any]:
        """All but the graph, as plain values."""
        return {
            "bytes": len(self.content),
            "convolutions": count_integer_steps(self.choice.graph),
            **self.choice.facts(),
            "held_out": {name: dataclasses.asdict(one) for name, one in self.held_out.items()},
            "real_ct": self.on_real,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FormMaker:
    """What every form of one bundle is made from and compared on.

    Attributes
    ----------
    bundle : Bundle
    index : Index
        Built with it in float32.
    calibration : sequence of ndarray
        Images, float32 ``(1, 1, S, S)`` each.
    choosing, held_out : QuerySet
    real_ct : QuerySet or None
    settings : QuantizeSettings
    say : callable
    """

    bundle: Bundle
    index: Index
    calibration: Sequence[npt.NDArray[np.float32]]
    choosing: QuerySet
    held_out: QuerySet
    real_ct: QuerySet | None
    settings: QuantizeSettings
    say: Callable[[str], None]

    def make(self, form: Form) -> MadeForm:
        """Choose, store and compare a form.

        Raises
        ------
        ModelError
            Its answers agree less with those of float32 than the limits ask for.
        """
        bundle, settings = self.bundle, self.settings
        chooser = Chooser(
            compress_weights(onnx.load(bundle.backbone, load_external_data=False)),
            bundle.backbone, bundle.fusion, self.choosing,
            Answers(self.index, self.choosing, settings.top_n), settings, self._say_of(form),
            symmetric=form.symmetric,
        )  # fmt: skip
        choice = chooser.choose(self.calibration)
        with tempfile.TemporaryDirectory(prefix="int8-") as folder:
            graph = _store(choice.graph, bundle, Path(folder) / form.file_name)
            self._say_of(form)("answers to held-out queries")
            held_out = self._compare(graph, self.held_out)
            check_limits(held_out, settings, form)
            on_real = None
            if self.real_ct is not None:
                self._say_of(form)("answers to real CT")
                on_real = {
                    "n_studies": len(set(self.real_ct.case_ids)),
                    **dataclasses.asdict(self._compare(graph, self.real_ct)[ALL]),
                }
            content = graph.read_bytes()
        return MadeForm(content=content, choice=choice, held_out=held_out, on_real=on_real)

    def _say_of(self, form: Form) -> Callable[[str], None]:
        return lambda line: self.say(f"{form.name}: {line}")

    def _compare(self, graph: Path, queries: QuerySet) -> dict[str, Agreement]:
        threads = self.settings.n_threads
        reference, other = (
            embed(
                self.bundle.fusion,
                deep_features(form, queries.images, n_threads=threads),
                queries.radiomics,
            )
            for form in (self.bundle.backbone, graph)
        )
        answers = Answers(self.index, queries, self.settings.top_n)
        return agreement(answers, queries, reference, other)


def check_limits(
    held_out: Mapping[str, Agreement], settings: QuantizeSettings, form: Form = FOR_CPU
) -> None:
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
            f"{form.name} and float32 answer {found.n_queries} held-out queries too differently: "
            f"{'; '.join(broken)}. Nothing was written; calibrate on more slices, allow more steps "
            f"in float (--max-float-steps), or {form.way_out}"
        )


def _store(graph: onnx.ModelProto, bundle: Bundle, path: Path) -> Path:
    """The graph as it will lie in the bundle, beside the file that it refers to."""
    shutil.copyfile(bundle.backbone, path.with_name(BACKBONE_NAME))
    stored = onnx.ModelProto()
    stored.CopyFrom(graph)
    refer_to(stored, BACKBONE_NAME, bundle.backbone.read_bytes())
    path.write_bytes(stored.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    return path
