"""One model file behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.forking import LeftInChildren
from ildsdk.runtime.providers import ep_name, resolve
from ildsdk.settings import RuntimeSettings

_LOG_FATAL = 4

# Newer ONNX Runtime builds carry a telemetry client; this library sends nothing anywhere.
ort.disable_telemetry_events()


class Session:
    """A loaded ONNX model that runs on a known provider. Safe to share between threads.

    Attributes
    ----------
    provider : str
        The provider that really runs: ``"cpu"``, ``"cuda"`` or ``"tensorrt"``.
    """

    def __init__(self, ort_session: ort.InferenceSession, provider: str) -> None:
        self._session = ort_session
        self._holder = LeftInChildren(ort_session)
        self.provider = provider
        self.input_shapes = {value.name: value.shape for value in ort_session.get_inputs()}
        self.output_shapes = {value.name: value.shape for value in ort_session.get_outputs()}

    def run(
        self, output: str, inputs: dict[str, npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Compute one output (float32) from named float32 inputs.

        Raises
        ------
        ModelError
            ONNX Runtime refused the inputs or failed while running.
        """
        return self.run_all([output], inputs)[0]

    def run_all(
        self, outputs: Sequence[str], inputs: dict[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        """Compute several outputs in one run; see :meth:`run`."""
        try:
            results: list[npt.NDArray[np.float32]] = self._session.run(list(outputs), inputs)
        except Exception as error:  # onnxruntime raises its own unrelated exception classes
            raise ModelError(
                f"the model failed while running on {self.provider!r}: {error}"
            ) from error
        return results


def open_session(model: Path, settings: RuntimeSettings, n_threads: int) -> Session:
    """Load a model file on the provider asked for.

    Parameters
    ----------
    model : Path
        ONNX file; checked by the bundle beforehand, without external data.
    settings : RuntimeSettings
        Provider and device.
    n_threads : int
        Threads of one run.

    Raises
    ------
    ModelError
        The file does not load, or the provider that runs is not the one asked for.
    """
    provider, ort_providers = resolve(settings.provider, settings.device_id)
    if settings.provider == "auto" and provider != "cpu":
        # "auto" takes a GPU only where a session really starts on it.
        try:
            return _start(model, provider, ort_providers, n_threads)
        except ModelError:
            provider, ort_providers = resolve("cpu", settings.device_id)
    return _start(model, provider, ort_providers, n_threads)


def _start(
    model: Path, provider: str, ort_providers: list[tuple[str, dict[str, Any]]], n_threads: int
) -> Session:
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False  # the arena never shrinks; no gain measured on CPU
    options.log_severity_level = _LOG_FATAL  # what matters is raised below, not logged
    # Threads that spin between slices would take the cores from mask and radiomics.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(model), sess_options=options, providers=ort_providers)
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
    session.disable_fallback()
    return Session(session, provider)


def _without(error: Exception, folder: Path) -> str:
    """Message of an error without the folder the file lies in."""
    return str(error).replace(str(folder), "...")
