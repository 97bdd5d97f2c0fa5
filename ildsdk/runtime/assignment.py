"""Where ONNX Runtime really put the nodes of a network."""

from __future__ import annotations

import collections
from pathlib import Path

import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.provider_libraries import EP_NAMES

_RECORD_OPTION = "session.record_ep_graph_assignment_info"
# Nearly all the arithmetic. What else lands on the CPU is about shapes, where ONNX Runtime
# itself prefers it.
_HEAVY_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def record_assignment(options: ort.SessionOptions) -> None:
    """Have the session that is made with these options remember where its nodes went."""
    options.add_session_config_entry(_RECORD_OPTION, "1")


def operators_by_provider(session: ort.InferenceSession) -> dict[str, collections.Counter[str]]:
    """Operator counts of each provider, by the name ONNX Runtime gives the provider.

    Parameters
    ----------
    session : InferenceSession
        Made with options given to :func:`record_assignment`.
    """
    counts: dict[str, collections.Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        operators = counts.setdefault(part.ep_name, collections.Counter())
        operators.update(node.op_type for node in part.get_nodes())
    return counts


def check_assignment(session: ort.InferenceSession, provider: str, model: Path) -> None:
    """Make sure that a provider computes the network, not only that the session names it.

    Parameters
    ----------
    session : InferenceSession
        As in :func:`operators_by_provider`.
    provider : {"cpu", "cuda", "tensorrt"}
    model : Path
        For the message.

    Raises
    ------
    ModelError
        A convolution or matrix product runs elsewhere.
    """
    counts = operators_by_provider(session)
    strays = {
        name: sum(count for kind, count in operators.items() if kind in _HEAVY_OPERATORS)
        for name, operators in counts.items()
        if name != EP_NAMES[provider]
    }
    if any(strays.values()):
        where = ", ".join(f"{count} on {name}" for name, count in strays.items() if count)
        hint = (
            "; TensorRT takes 8-bit graphs with zero points of 0 only (docs/gpu.md)"
            if provider == "tensorrt" and _is_quantised(counts)
            else ""
        )
        raise ModelError(
            f"{model.name} was asked for on {provider!r}, but of its convolutions and matrix "
            f"products {where} would run elsewhere{hint}; ask for another precision or provider"
        )


def _is_quantised(counts: dict[str, collections.Counter[str]]) -> bool:
    return any("QuantizeLinear" in operators for operators in counts.values())
