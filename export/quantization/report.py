"""The tables of ``docs/int8.md``. Phantom and real CT never share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.quantization.agreement import ALL
from export.whole_files import write_whole
from ildsdk.errors import ConfigError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_N_SENSITIVE, _N_SATURATED = 12, 8
_HEADS = (
    "| {} | queries | class of top-1 kept, % | same top-1 slice, % | top-{} overlap | "
    "cosine, least | cosine, median | squared distance |"
)
_RULE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def markdown(report: Mapping[str, Any]) -> str:
    """Tables of one report."""
    settings, rows = report["settings"], report["rows"]
    data = "PHANTOM (synthetic) CT" if report["is_synthetic"] else "the user's archive"
    top_n = settings["top_n"]
    count, machine = report["convolutions"], report["machine"]
    steps = report["float_steps"]
    lines = [
        f"Bundle `{report['bundle_hash'][:12]}`. {count['int8']} convolutions in int8, "
        f"{count['float32']} in float32; steps left in float32: {', '.join(steps) or 'none'}. "
        f"Calibration `{report['method']}`, biases "
        f"{'corrected' if report['is_corrected'] else 'as they were'}. "
        f"`backbone-int8.onnx` has {report['bytes'] / 1e6:.2f} MB. Made with "
        f"{', '.join(f'{name} {value}' for name, value in machine.items())}.",
        "",
        f"### Held-out queries ({data})",
        "",
        f"{rows['held_out']} slices of cases held out of training, against the index built in "
        "float32: what the int8 form answers, beside what float32 answers. Limits: class kept "
        f"{100 * settings['min_top1_label']:g} %, overlap {settings['min_overlap']:g}, cosine "
        f"{settings['min_cosine']:g} at least and {settings['min_median_cosine']:g} in the median.",
        "",
        *_table("class of query", report["held_out"].items(), top_n),
        "",
        f"### What it was chosen by ({data})",
        "",
        f"{rows['choosing']} slices of training cases, none of them among the "
        f"{rows['calibration']} calibration slices; a query's own case is left out of its answers.",
        "",
        *_table("calibration", _named(report["methods"]), top_n),
        "",
        *_table(f"biases, with {report['method']}", _named(report["corrections"]), top_n),
        "",
        *_table("steps in float32", _named(report["float_trials"]), top_n),
        "",
        f"### Sensitivity of each step ({data})",
        "",
        "Each step alone in int8, all others in float32: mean squared distance of the embeddings "
        f"to float32, and its share of the sum over all steps; the first {_N_SENSITIVE} of "
        f"{len(report['sensitivities'])}.",
        "",
        "| step | squared distance | share, % |",
        "| --- | ---: | ---: |",
        *(
            f"| `{one['step']}` | {one['squared_distance']:.2e} | {100 * one['share']:.1f} |"
            for one in report["sensitivities"][:_N_SENSITIVE]
        ),
        "",
        f"### Saturation on a CPU without VNNI ({data})",
        "",
        "By numbers: pairs of products that leave 16 bits, output values that this changes, and "
        "the change over the exact values (root mean square); the "
        f"{_N_SATURATED} convolutions that change most of {len(report['saturation'])}.",
        "",
        "| convolution | pairs, % | output values, % | change, % |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| `{one['name']}` | {100 * one['pairs']:.4f} | {100 * one['sums']:.2f} | "
            f"{100 * one['error']:.2f} |"
            for one in sorted(report["saturation"], key=lambda one: -one["error"])[:_N_SATURATED]
        ),
    ]
    symmetric = report["symmetric"]
    if symmetric is not None:
        lines += ["", *_symmetric(symmetric, data, top_n)]
    if report["real_ct"] is not None:
        real = report["real_ct"]
        real_rows = [("real CT", real)]
        if symmetric is not None:
            real_rows.append(("real CT, symmetric form", symmetric["real_ct"]))
        lines += [
            "",
            "### Real CT",
            "",
            f"{real['n_queries']} slices of {real['n_studies']} studies of real CT, for which the "
            "phantom index has no true answer: only whether int8 and float32 say the same. Decides "
            "nothing and is no limit.",
            "",
            *_table("queries", real_rows, top_n),
        ]
    return "\n".join(lines)


def _symmetric(form: Mapping[str, Any], data: str, top_n: int) -> list[str]:
    count = form["convolutions"]
    return [
        "### The symmetric form, for TensorRT",
        "",
        f"{count['int8']} convolutions in int8, {count['float32']} in float32; steps left in "
        f"float32: {', '.join(form['float_steps']) or 'none'}. Calibration `{form['method']}`, "
        f"biases {'corrected' if form['is_corrected'] else 'as they were'}. "
        f"`backbone-int8-symmetric.onnx` has {form['bytes'] / 1e6:.2f} MB. Same slices and limits "
        "as above; computed by ONNX Runtime on the CPU, not by TensorRT.",
        "",
        *_table(f"held-out queries ({data})", form["held_out"].items(), top_n),
        "",
        *_table("calibration", _named(form["methods"]), top_n),
        "",
        *_table("steps in float32", _named(form["float_trials"]), top_n),
    ]


def write_document(path: Path, report: Mapping[str, Any]) -> None:
    """Replace what stands between the markers of a page.

    Raises
    ------
    ConfigError
        The page is not there or has no markers.
    """
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ConfigError(f"{path.name!r} has no lines {BEGIN!r} and {END!r} to write between")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    write_whole(path, f"{before}{BEGIN}\n{markdown(report)}\n{END}{after}".encode())


def _named(tried: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(one["name"]), one) for one in tried]


def _table(head: str, rows: Any, top_n: int) -> list[str]:
    lines = [_HEADS.format(head, top_n), _RULE]
    for name, found in rows:
        lines.append(
            f"| {'all classes' if name == ALL else name} | {found['n_queries']} | "
            f"{100 * found['top1_label']:.2f} | {100 * found['top1_item']:.2f} | "
            f"{found['top_n_overlap']:.4f} | {found['cosine_min']:.6f} | "
            f"{found['cosine_median']:.6f} | {found['mean_squared_distance']:.2e} |"
        )
    return lines
