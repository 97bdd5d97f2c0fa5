"""Choosing calibration, bias correction and float steps, on cases that are never scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from export.quantization.activations import Distribution, collect, ranges
from export.quantization.agreement import ALL, Agreement, Answers, QuerySet, agreement
from export.quantization.bias_correction import correct_biases
from export.quantization.embedding import deep_features, embed
from export.quantization.qdq import Range, steps_of, tensors_of, to_qdq
from export.quantization.sensitivity import Sensitivity, measure_sensitivity
from export.quantization.settings import QuantizeSettings, parse_method

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The int8 form that was chosen, and the tables it was chosen by.

    Attributes
    ----------
    graph : ModelProto
        QDQ form that holds its weights.
    method : str
    is_corrected : bool
        Whether biases are corrected.
    float_steps : tuple of str
    methods, corrections, float_trials : tuple of (str, Agreement)
        What was tried, with its agreement on the choosing queries.
    sensitivities : tuple of Sensitivity
    """

    graph: onnx.ModelProto
    method: str
    is_corrected: bool
    float_steps: tuple[str, ...]
    methods: tuple[tuple[str, Agreement], ...]
    corrections: tuple[tuple[str, Agreement], ...]
    float_trials: tuple[tuple[str, Agreement], ...]
    sensitivities: tuple[Sensitivity, ...]

    def facts(self) -> dict[str, Any]:
        """All but the graph, as plain values."""

        def table(tried: Sequence[tuple[str, Agreement]]) -> list[dict[str, Any]]:
            return [{"name": name, **dataclasses.asdict(found)} for name, found in tried]

        return {
            "method": self.method,
            "is_corrected": self.is_corrected,
            "float_steps": list(self.float_steps),
            "methods": table(self.methods),
            "corrections": table(self.corrections),
            "float_trials": table(self.float_trials),
            "sensitivities": [dataclasses.asdict(one) for one in self.sensitivities],
        }


class Chooser:
    """Measures candidates on the choosing queries.

    Parameters
    ----------
    model : ModelProto
        float32 graph with stored int8 weights.
    backbone, fusion : Path
        The bundle's files: what the candidates are compared with, and what embeds.
    queries : QuerySet
    answers : Answers
        Of the same queries.
    symmetric : bool
        As in :func:`~export.quantization.qdq.to_qdq`.
    """

    def __init__(
        self, model: onnx.ModelProto, backbone: Path, fusion: Path, queries: QuerySet,
        answers: Answers, settings: QuantizeSettings, say: Say, *, symmetric: bool = False,
    ) -> None:  # fmt: skip
        self._model, self._fusion, self._settings, self._say = model, fusion, settings, say
        self._symmetric = symmetric
        self._queries, self._answers = queries, answers
        deep = deep_features(backbone, queries.images, n_threads=settings.n_threads)
        self._reference = embed(fusion, deep, queries.radiomics)

    def choose(self, images: Sequence[npt.NDArray[np.float32]]) -> Choice:
        """Compare calibrations on these images, correct biases, leave steps in float if need be."""
        settings = self._settings
        tensors = tensors_of(steps_of(self._model, symmetric=self._symmetric))
        self._say(f"activations of {len(images)} calibration slices")
        seen = collect(self._model, tensors, images, n_threads=settings.n_threads)
        drawn = {name: _drawn(seen, name, self._symmetric) for name in settings.methods}
        methods = [(name, self._measure(name, self._model, drawn[name])) for name in drawn]
        method = min(methods, key=lambda tried: tried[1].mean_squared_distance)[0]
        limits = drawn[method]
        sensitivities = self._sensitivities(limits)
        # Spread over them: what is altered stands among what is not.
        places = np.linspace(0, len(images) - 1, min(settings.n_correction, len(images)))
        correcting = [images[place] for place in places.astype(int)]
        corrections = [("as calibrated", dict(methods)[method])]
        corrected = self._corrected(limits, (), correcting)
        corrections.append(("biases corrected", self._measure("corrected", corrected, limits)))
        first, second = (found.mean_squared_distance for _, found in corrections)
        is_corrected = second < first
        best = corrections[1 if is_corrected else 0][1]
        model, float_steps = (corrected if is_corrected else self._model), tuple[str, ...]()
        trials = [("none", best)]
        while not self._keeps(best) and len(float_steps) < settings.max_float_steps:
            float_steps = tuple(one.step for one in sensitivities[: len(float_steps) + 1])
            if is_corrected:
                model = self._corrected(limits, float_steps, correcting)
            name = f"the {len(float_steps)} most sensitive"
            best = self._measure(name, model, limits, float_steps)
            trials.append((name, best))
        return Choice(
            graph=to_qdq(model, limits, float_steps, symmetric=self._symmetric),
            method=method,
            is_corrected=is_corrected,
            float_steps=float_steps,
            methods=tuple(methods),
            corrections=tuple(corrections),
            float_trials=tuple(trials),
            sensitivities=tuple(sensitivities),
        )

    def _keeps(self, found: Agreement) -> bool:
        """Whether the limits hold with half of the disagreement they allow."""
        settings = self._settings
        return (
            1 - found.top1_label <= (1 - settings.min_top1_label) / 2
            and 1 - found.top_n_overlap <= (1 - settings.min_overlap) / 2
            and found.cosine_min >= settings.min_cosine
            and found.cosine_median >= settings.min_median_cosine
        )

    def _corrected(
        self, limits: Mapping[str, Range], float_steps: tuple[str, ...],
        images: Sequence[npt.NDArray[np.float32]],
    ) -> onnx.ModelProto:  # fmt: skip
        self._say("correct biases")
        return correct_biases(
            self._model, limits, float_steps, images,
            symmetric=self._symmetric, n_threads=self._settings.n_threads,
        )  # fmt: skip

    def _measure(
        self, name: str, model: onnx.ModelProto, limits: Mapping[str, Range],
        float_steps: tuple[str, ...] = (),
    ) -> Agreement:  # fmt: skip
        graph = to_qdq(model, limits, float_steps, symmetric=self._symmetric).SerializeToString()
        deep = deep_features(graph, self._queries.images, n_threads=self._settings.n_threads)
        embeddings = embed(self._fusion, deep, self._queries.radiomics)
        found = agreement(self._answers, self._queries, self._reference, embeddings)[ALL]
        self._say(
            f"{name}: best neighbor's class kept {found.top1_label:.4f}, overlap "
            f"{found.top_n_overlap:.4f}, squared distance {found.mean_squared_distance:.2e}"
        )
        return found

    def _sensitivities(self, limits: Mapping[str, Range]) -> list[Sensitivity]:
        self._say("sensitivity of each step")
        n = min(self._settings.n_sensitivity, len(self._queries))
        places = np.linspace(0, len(self._queries) - 1, n).astype(int)
        images = [self._queries.images[place] for place in places]
        radiomics = self._queries.radiomics[places]

        def embeddings(graph: onnx.ModelProto) -> npt.NDArray[np.float32]:
            threads = self._settings.n_threads
            deep = deep_features(graph.SerializeToString(), images, n_threads=threads)
            return embed(self._fusion, deep, radiomics)

        return measure_sensitivity(
            self._model, limits, embeddings, self._reference[places], symmetric=self._symmetric
        )


def _drawn(seen: Mapping[str, Distribution], name: str, symmetric: bool) -> dict[str, Range]:
    method, percentile = parse_method(name)
    return ranges(seen, method, percentile, symmetric=symmetric)
