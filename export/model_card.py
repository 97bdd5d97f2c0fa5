"""The model card of a bundle, in Markdown, filled from what was measured and recorded.

Headings of Mitchell et al. 2019, "Model cards for model reporting". Where nothing was recorded
the card says that it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ildsdk.settings import MethodSettings

UNKNOWN = "not known"
_SYSTEM_TITLES = {
    "fusion": "the embedding (what ships)",
    "deep": "deep features of the same backbone alone",
    "radiomics": "standardised radiomics alone",
}


def model_card(
    *,
    name: str,
    license: str,
    intended_use: str,
    is_synthetic: bool,
    labels: Sequence[str],
    method: MethodSettings,
    embedding_size: int,
    gem_p: float,
    provenance: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> str:
    """Write the card.

    Parameters
    ----------
    name, license, intended_use, is_synthetic, labels, method, embedding_size, gem_p
        As in the bundle's manifest.
    provenance : mapping
        Of :func:`export.bundling.assemble_bundle`.
    figures : mapping
        Content of ``evaluation.json``.
    """
    training = provenance.get("training", {})
    data = "phantom (computer-made) CT" if is_synthetic else "the archive it was trained on"
    sections = {
        "Model details": _details(name, license, labels, method, embedding_size, gem_p, provenance),
        "Intended use": _use(intended_use, is_synthetic, labels),
        "Factors": _factors(is_synthetic),
        "Metrics": _metrics(figures),
        "Evaluation data": _evaluation_data(training, figures, data),
        "Training data": _training_data(training, provenance, labels, is_synthetic, data),
        "Quantitative analyses": _analyses(figures, data),
        "Ethical considerations": _ethics(is_synthetic),
        "Caveats and recommendations": _caveats(training, figures, is_synthetic),
    }
    lines = [f"# Model card: {name}", ""]
    if is_synthetic:
        lines += [
            "**Trained and evaluated on computer-made phantoms. No figure below says anything "
            "about patients.**",
            "",
        ]
    for heading, body in sections.items():
        lines += [f"## {heading}", "", *body, ""]
    return "\n".join(lines)


def _details(
    name: str, license: str, labels: Sequence[str], method: MethodSettings, embedding_size: int,
    gem_p: float, provenance: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    settings = provenance.get("training", {}).get("settings", {})
    versions = provenance.get("versions", {})
    weights = provenance.get("training", {}).get("initial_weights_sha256")
    start = f"a state dict with SHA-256 `{weights}`" if weights else "random weights"
    return [
        f"- Name: {name}. License: {license}.",
        f"- What it is: ResNet-50 with generalised-mean pooling (exponent {gem_p:g}) and the "
        "fusion network ILD-FFN over deep and radiomics features, after Chen et al. 2025, DOI "
        "10.12404/j.issn.1671-1815.2406118. It turns one slice into a unit vector of "
        f"{embedding_size} numbers; similar slices have a high cosine.",
        f"- Input: an axial chest CT slice, window {method.window_center_hu:g} / "
        f"{method.window_width_hu:g} HU, lungs cut out and resampled to {method.input_size} x "
        f"{method.input_size}, and 102 radiomics features of the lungs.",
        f"- Diagnoses it was trained to tell apart: {', '.join(labels)}.",
        f"- Training: started from {start}, seed {settings.get('seed', UNKNOWN)}, git commit "
        f"{provenance.get('git_commit') or UNKNOWN}.",
        f"- Hash of method, labels and weights: `{provenance.get('model_hash') or UNKNOWN}`.",
        "- Versions: "
        + (", ".join(f"{key} {value}" for key, value in versions.items()) or UNKNOWN)
        + ".",
    ]


def _use(intended_use: str, is_synthetic: bool, labels: Sequence[str]) -> list[str]:
    lines = [
        intended_use,
        "",
        "It must not be used",
        "",
        "- to make, confirm or rule out a diagnosis, or to decide on treatment: it shows slices "
        "that look alike, and a similar picture is not the same disease;",
        "- as a medical device: no clearance and no clinical validation are on record;",
        f"- to recognise any disease but {', '.join(labels)}: whatever else a slice shows, the "
        "answers are of these kinds;",
        "- on anything but axial chest CT slices in Hounsfield units;",
        "- with an index that was built with another bundle.",
    ]
    if is_synthetic:
        lines.append("- on patients at all, other than to try the software.")
    return lines


def _factors(is_synthetic: bool) -> list[str]:
    if is_synthetic:
        return [
            "Phantoms vary in sex, body size, dose, reconstruction kernel, slice thickness and "
            "position. How the figures differ between these groups was not measured. Age, origin "
            "and comorbidity have no counterpart in the phantoms."
        ]
    return [
        "Sex, age, origin, scanner, dose, kernel and slice thickness of the training cases are "
        "not part of the training set as recorded; how the figures differ between such groups is "
        "not known."
    ]


def _metrics(figures: Mapping[str, Any]) -> list[str]:
    first = figures.get("systems", {}).get("fusion")
    if not first:
        return [f"What was measured is {UNKNOWN}."]
    return [
        "Class of the most similar slice of another case (precision, recall, F1, mean over "
        f"classes), share of right classes among the first {first.get('top_n', UNKNOWN)}, mean "
        "average precision, class of the best-ranked case (by the mean over the query slices of "
        "the best cosine that a case reaches), distances within and between classes with "
        "s (eq. 16) and Rousseeuw's silhouette."
    ]


def _evaluation_data(
    training: Mapping[str, Any], figures: Mapping[str, Any], data: str
) -> list[str]:
    first = figures.get("systems", {}).get("fusion", {})
    return [
        f"{first.get('n_query_slices', UNKNOWN)} slices of "
        f"{first.get('n_query_cases', UNKNOWN)} held-out cases of {data}, searched in "
        f"{first.get('n_index_slices', UNKNOWN)} slices of {first.get('n_index_cases', UNKNOWN)} "
        "other cases. Cases were split, not slices. One split: no interval. Held out: "
        f"{_listed(training.get('held_out_cases'))}. Data of another hospital: none."
    ]


def _training_data(
    training: Mapping[str, Any], provenance: Mapping[str, Any], labels: Sequence[str],
    is_synthetic: bool, data: str,
) -> list[str]:  # fmt: skip
    cases = training.get("train_cases")
    n_cases = len(cases) if cases else UNKNOWN
    lines = [
        f"{training.get('n_train_slices', UNKNOWN)} slices of {n_cases} cases of {data}, "
        f"diagnoses {', '.join(labels)}. How the diagnoses were established: "
        + ("set by the phantom generator." if is_synthetic else f"{UNKNOWN}."),
        f"SHA-256 of the prepared images, radiomics and table: "
        f"`{provenance.get('data_sha256') or UNKNOWN}`.",
    ]
    if provenance.get("data"):
        described = ", ".join(f"{key} {value}" for key, value in provenance["data"].items())
        lines.append(f"Made with: {described}.")
    return lines


def _analyses(figures: Mapping[str, Any], data: str) -> list[str]:
    systems = figures.get("systems", {})
    if not systems:
        return [f"No figures: {UNKNOWN}."]
    top_n = systems.get("fusion", {}).get("top_n", "n")
    lines = [
        f"Percent, held-out cases of {data}:",
        "",
        f"| | precision | recall | F1 | precision@{top_n} | mAP | cases right |",
        "| --- " * 7 + "|",
    ]
    for system, measures in systems.items():
        top1 = measures.get("slice_top1", {})
        values = [
            *(top1.get(key) for key in ("precision", "recall", "f1")),
            measures.get("precision_at_n"),
            measures.get("mean_average_precision"),
            measures.get("case_top1", {}).get("accuracy"),
        ]
        cells = [UNKNOWN if value is None else f"{100 * value:.1f}" for value in values]
        lines.append(f"| {_SYSTEM_TITLES.get(system, system)} | {' | '.join(cells)} |")
    recall = systems.get("fusion", {}).get("slice_top1", {}).get("recall_by_class")
    names = systems.get("fusion", {}).get("labels")
    if recall and names:
        by_class = ", ".join(
            f"{label} {100 * value:.1f}" for label, value in zip(names, recall, strict=True)
        )
        lines += ["", f"Recall of the embedding by class, percent: {by_class}."]
    baseline = systems.get("fusion", {}).get("baseline_prevalence", {})
    if "accuracy_random_neighbor" in baseline:
        lines += [
            "",
            "A neighbor drawn at random has the right class in "
            f"{100 * baseline['accuracy_random_neighbor']:.1f} % of queries.",
        ]
    return lines


def _ethics(is_synthetic: bool) -> list[str]:
    if is_synthetic:
        return [
            "No patient's data went into this model. Its danger is to be taken for more than it "
            "is: answers look like those of a model trained on patients."
        ]
    return [
        "Trained on patients' CT. Consent and permission for the data: not known to the software; "
        "they are for whoever trained it to state. Weights and location vectors are derived from "
        "the pictures, and what could be drawn from them about single patients was not measured. "
        "Groups that are rare in the archive may get worse answers; this was not measured either."
    ]


def _caveats(
    training: Mapping[str, Any], figures: Mapping[str, Any], is_synthetic: bool
) -> list[str]:
    first = figures.get("systems", {}).get("fusion", {})
    threshold = first.get("no_match_threshold")
    if threshold is None:
        calibration = f'- Threshold of "no similar case": {UNKNOWN}.'
    else:
        calibration = (
            f'- "No similar case" is said below a cosine of {threshold:.4f}, the 1st percentile of '
            f"the best scores of {first.get('n_query_slices', UNKNOWN)} held-out slices: one in a "
            "hundred slices of the known kinds falls below it by construction. How many slices of "
            "unknown kinds do was not measured."
        )
    lines = [
        calibration,
        "- With few held-out cases small differences between the figures mean nothing.",
        "- An activation map shows what moved the cosine to first order, with the radiomics held "
        "fixed; it does not show that the model looks at the lesion, nor why two patients are "
        "alike.",
    ]
    if is_synthetic:
        lines.append("- For any other use train a bundle on an archive of your own and measure it.")
    else:
        lines.append("- Measure it on cases of the place where it is to be used, before use.")
    return lines


def _listed(cases: Sequence[str] | None) -> str:
    if not cases:
        return UNKNOWN
    shown = ", ".join(cases[:8])
    return shown if len(cases) <= 8 else f"{shown} and {len(cases) - 8} more (see the manifest)"
