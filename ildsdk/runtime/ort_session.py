"""ONNX Runtime as the engine behind :class:`ildsdk.runtime.session.Session`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.cpu_features import cpu_features
from ildsdk.runtime.forking import LeftInChildren
from ildsdk.runtime.precision import RunPrecision
from ildsdk.runtime.providers import CPU_PROVIDERS, choose_provider, ep_name
from ildsdk.runtime.session import Axes, Session
from ildsdk.settings import RuntimeSettings

_LOG_FATAL = 4

# Newer ONNX Runtime builds carry a telemetry client; this library sends nothing anywhere.
ort.disable_telemetry_events()


class OrtSession:
    """A network loaded by ONNX Runtime; see :class:`~ildsdk.runtime.session.Session`.

    Attributes
    ----------
    provider : {"cpu", "cuda", "tensorrt"}
    input_shapes, output_shapes : dict
    """

    def __init__(self, ort_session: ort.InferenceSession, provider: str) -> None:
        self._session = ort_session
        self._holder = LeftInChildren(ort_session)
        self.provider = provider
        self.input_shapes: dict[str, Axes] = {
            value.name: value.shape for value in ort_session.get_inputs()
        }
        self.output_shapes: dict[str, Axes] = {
            value.name: value.shape for value in ort_session.get_outputs()
        }

    def run_all(
        self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs; see :class:`~ildsdk.runtime.session.Session`."""
        try:
            results: list[npt.NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:  # onnxruntime raises its own unrelated exception classes
            raise ModelError(
                f"the model failed while running on {self.provider!r}: {error}"
            ) from error
        return results


def open_session(
    model: Path,
    settings: RuntimeSettings,
    n_threads: int,
    *,
    precision: RunPrecision = "fp32",
) -> Session:
    """Load a model file on the provider asked for.

    Parameters
    ----------
    model : Path
        ONNX file, checked by the bundle beforehand.
    settings : RuntimeSettings
        Provider and device; ``"auto"`` takes the provider that should run here, and does not
        try another when it fails (:func:`ildsdk.runtime.networks.open_networks` does).
    n_threads : int
        Threads of one run.
    precision : {"fp32", "int8", "fp16"}
        Arithmetic of this model, as :func:`ildsdk.runtime.precision.choose_precision` gave it.

    Raises
    ------
    ModelError
        The file does not load, or the provider that runs is not the one asked for.
    """
    provider = choose_provider(settings.provider)
    if provider != "cpu":
        # Driver, engines and device tensors: nothing that a start on the CPU should pay for.
        from ildsdk.runtime.gpu_session import open_gpu_session

        return open_gpu_session(model, provider, settings, precision)
    return start(model, provider, CPU_PROVIDERS, session_options(n_threads, precision))


def session_options(n_threads: int, precision: RunPrecision) -> ort.SessionOptions:
    """Options of every session, whatever its provider."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False  # the arena never shrinks; no gain measured on CPU
    options.log_severity_level = _LOG_FATAL  # what matters is raised below, not logged
    # Threads that spin between slices would take the cores from mask and radiomics.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if needs_saturation_guard(precision):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def needs_saturation_guard(precision: RunPrecision) -> bool:
    """Whether 8-bit sums must be guarded against saturation on this processor.

    Without VNNI pairs of unsigned times signed 8-bit products are added in 16 bits, which
    saturates. Guarded, ONNX Runtime takes unsigned weights and kernels that do not; slower.
    """
    return precision == "int8" and not cpu_features().has_fast_int8


def start(
    model: Path,
    provider: str,
    ort_providers: list[tuple[str, dict[str, str]]],
    options: ort.SessionOptions,
) -> OrtSession:
    """Start a session and make sure of the provider that runs; see :func:`open_session`."""
    try:
        session = ort.InferenceSession(
            str(model), sess_options=options, providers=ort_providers, enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises its own unrelated exception classes
        raise ModelError(
            f"model {model.name} does not load on {provider!r}: {_without(error, model.parent)}; "
            "verify the bundle "
            "(ildsdk bundle verify) and the provider (ildsdk doctor)"
        ) from error
    running = session.get_providers()[0]
    if running != ep_name(provider):
        raise ModelError(
            f"execution provider {provider!r} was asked for, but ONNX Runtime runs on {running}; "
            "see ildsdk doctor for what is missing, or ask for provider 'cpu'"
        )
    return OrtSession(session, provider)


def _without(error: Exception, folder: Path) -> str:
    """Message of an error without the folder the file lies in."""
    return str(error).replace(str(folder), "...")
