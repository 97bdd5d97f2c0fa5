"""Networks whose tensors stay on their device: IO binding, fixed addresses, CUDA graphs.

For the shape that is asked for nearly always, batch 1, inputs and outputs have fixed addresses:
nothing is allocated between runs, and a CUDA graph captured once can be replayed. Any other batch
goes through ONNX Runtime's own allocation. The code is the same on the CPU, which is where it is
tested without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.forking import LeftInChildren
from ildsdk.runtime.session import Axes, Session

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.float32]]

_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"  # a run outside of the fixed addresses is neither captured nor replayed
_FIXED_BATCH = 1


class DeviceSession:
    """A loaded network with tensors on a device; safe to share between threads, one runs at a time.

    Parameters
    ----------
    ort_session : InferenceSession
    provider : {"cpu", "cuda", "tensorrt"}
        The provider that really runs.
    device : {"cpu", "cuda"}
        Where its tensors lie.
    device_id : int
    batch_max : int or None
        Largest batch the network takes; None: any.
    has_cuda_graph : bool
        Runs of the fixed shape are captured and replayed, as the session was told.

    Attributes
    ----------
    provider : str
    input_shapes, output_shapes : dict
        Axes of each input and output, batch first.
    has_cuda_graph : bool
    lock : RLock
        Held while a run uses the fixed addresses.
    """

    def __init__(
        self,
        ort_session: ort.InferenceSession,
        provider: str,
        *,
        device: str,
        device_id: int = 0,
        batch_max: int | None = None,
        has_cuda_graph: bool = False,
    ) -> None:
        self._session = ort_session
        self._holder = LeftInChildren(ort_session)
        self._device = (device, device_id)
        self._batch_max = batch_max
        self.provider = provider
        self.has_cuda_graph = has_cuda_graph
        self.lock = threading.RLock()
        self.input_shapes: dict[str, Axes] = _axes(ort_session.get_inputs())
        self.output_shapes: dict[str, Axes] = _axes(ort_session.get_outputs())
        self._free_run = ort.RunOptions()
        self._free_run.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        self._fixed: FixedRun | None = None

    def run_all(self, outputs: Sequence[str], inputs: Arrays) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs (float32) from named float32 inputs, in one run.

        Raises
        ------
        ModelError
            An input or output is unknown or of another shape, the batch is larger than the
            network was built for, or the run failed.
        """
        self._check_outputs(outputs)
        self._check_batch(inputs)
        with self.lock:
            fixed = self.fixed_run()
            # Without each input given, a shared one would still hold another slice's values.
            is_whole = inputs.keys() == self.input_shapes.keys()
            if fixed is not None and is_whole and fixed.takes(inputs):
                fixed.load(inputs)
                fixed.run()
                return [fixed.read(name) for name in outputs]
        try:
            results: list[npt.NDArray[np.float32]] = self._session.run(
                list(outputs), dict(inputs), self._free_run
            )
        except Exception as error:  # onnxruntime raises its own unrelated exception classes
            raise _failed(self.provider, error) from error
        return results

    def fixed_run(self, shared: Mapping[str, ort.OrtValue] | None = None) -> FixedRun | None:
        """Run of batch 1 at fixed addresses, made when first asked for.

        Parameters
        ----------
        shared : mapping, optional
            Inputs that another network writes, name to tensor on the same device. Given, the run
            is made anew.

        Returns
        -------
        FixedRun or None
            None where the network leaves more than the batch axis free.
        """
        is_fixed = all(
            isinstance(axis, int)
            for shape in (*self.input_shapes.values(), *self.output_shapes.values())
            for axis in shape[1:]
        )
        if is_fixed and (self._fixed is None or shared is not None):
            self._fixed = FixedRun(self, self._session, self._device, shared or {})
        return self._fixed

    @property
    def device(self) -> tuple[str, int]:
        """Kind and number of the device the tensors lie on."""
        return self._device

    def _check_outputs(self, outputs: Sequence[str]) -> None:
        unknown = [name for name in outputs if name not in self.output_shapes]
        if unknown:
            raise ModelError(
                f"the network has outputs {sorted(self.output_shapes)}, expected {unknown[0]!r}"
            )

    def _check_batch(self, inputs: Arrays) -> None:
        if self._batch_max is None:
            return
        batch = max((array.shape[0] for array in inputs.values() if array.ndim), default=0)
        if batch > self._batch_max:
            raise ModelError(
                f"a batch of {batch} was asked for, and the TensorRT engine is built for at most "
                f"{self._batch_max}; build a larger one (`ildsdk build-engine --batch-max {batch}`)"
            )


class FixedRun:
    """One network bound to tensors that stay where they are.

    Parameters
    ----------
    owner : DeviceSession
    ort_session : InferenceSession
    device : (str, int)
    shared : mapping
        Inputs that already exist.
    """

    def __init__(
        self,
        owner: DeviceSession,
        ort_session: ort.InferenceSession,
        device: tuple[str, int],
        shared: Mapping[str, ort.OrtValue],
    ) -> None:
        self._session = ort_session
        self._provider = owner.provider
        self._shapes = {name: _at_fixed_batch(axes) for name, axes in owner.input_shapes.items()}
        self._shared = frozenset(shared)
        try:
            self._inputs = {
                name: shared.get(name) or _tensor(shape, device)
                for name, shape in self._shapes.items()
            }
            self.outputs = {
                name: _tensor(_at_fixed_batch(axes), device)
                for name, axes in owner.output_shapes.items()
            }
            self._binding = ort_session.io_binding()
            for name, value in self._inputs.items():
                self._binding.bind_ortvalue_input(name, value)
            # All of them: one captured graph serves whatever is asked for. Only what is asked
            # for is copied to the host.
            for name, value in self.outputs.items():
                self._binding.bind_ortvalue_output(name, value)
        except Exception as error:  # onnxruntime raises its own unrelated exception classes
            raise _failed(self._provider, error) from error

    def takes(self, inputs: Arrays) -> bool:
        """Whether these are all inputs but the shared ones, in the fixed shape and type."""
        return set(inputs) == set(self._shapes) - self._shared and all(
            array.shape == self._shapes[name] and array.dtype == np.float32
            for name, array in inputs.items()
        )

    def load(self, inputs: Arrays) -> None:
        """Copy inputs to their addresses."""
        for name, array in inputs.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))

    def run(self) -> None:
        """Compute all outputs from what lies at the input addresses.

        Raises
        ------
        ModelError
            The network failed.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises its own unrelated exception classes
            raise _failed(self._provider, error) from error

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Copy of an output in host memory."""
        # On the CPU numpy() shows the tensor itself, which the next run overwrites.
        return np.array(self.outputs[name].numpy())


class DeviceChain:
    """Two networks on one device, the second fed by the first without leaving it.

    Has the interface of a session with the inputs of both that are not passed between them.

    Parameters
    ----------
    first, second : DeviceSession
        Each output of ``first`` that ``second`` has as input is passed on.

    Raises
    ------
    ModelError
        They lie on different devices, pass nothing on, or leave axes free.
    """

    def __init__(self, first: DeviceSession, second: DeviceSession) -> None:
        self._first, self._second = first, second
        passed = [name for name in second.input_shapes if name in first.output_shapes]
        head = first.fixed_run()
        if first.device != second.device or not passed or head is None:
            raise ModelError(
                f"networks on {first.device} and {second.device} that pass on {passed} cannot be "
                "chained"
            )
        tail = second.fixed_run({name: head.outputs[name] for name in passed})
        if tail is None:
            raise ModelError("the second network of a chain leaves axes free")
        self._head, self._tail = head, tail
        self.provider = first.provider
        self.input_shapes: dict[str, Axes] = {
            **first.input_shapes,
            **{name: axes for name, axes in second.input_shapes.items() if name not in passed},
        }
        self.output_shapes: dict[str, Axes] = {**first.output_shapes, **second.output_shapes}

    def run_all(
        self,
        outputs: Sequence[str],
        inputs: Arrays,
        *,
        late: Callable[[], Arrays] = dict,
    ) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs of either network, batch 1.

        Parameters
        ----------
        outputs : sequence of str
        inputs : mapping
            float32, batch 1.
        late : callable
            Called between the two; gives further inputs of the second.

        Raises
        ------
        ModelError
            Other inputs or outputs than these networks have, or a run failed.
        """
        of_first = {
            name: array for name, array in inputs.items() if name in self._first.input_shapes
        }
        if any(name not in self.output_shapes for name in outputs) or not self._head.takes(
            of_first
        ):
            raise self._refused(outputs, inputs)
        with self._first.lock, self._second.lock:
            self._head.load(of_first)
            self._head.run()
            of_second = {n: array for n, array in inputs.items() if n not in of_first} | {**late()}
            if not self._tail.takes(of_second):
                raise self._refused(outputs, {**inputs, **of_second})
            self._tail.load(of_second)
            self._tail.run()
            return [
                (self._tail if name in self._tail.outputs else self._head).read(name)
                for name in outputs
            ]

    def _refused(self, outputs: Sequence[str], inputs: Arrays) -> ModelError:
        return ModelError(
            f"the networks take {self.input_shapes} in batches of {_FIXED_BATCH} and give "
            f"{sorted(self.output_shapes)}; found inputs "
            f"{ {name: array.shape for name, array in inputs.items()} } for {list(outputs)}"
        )


def chain_of(first: Session, second: Session) -> DeviceChain | None:
    """Chain of two networks whose tensors lie on one device; None where they do not."""
    if not isinstance(first, DeviceSession) or not isinstance(second, DeviceSession):
        return None
    if first.device != second.device or first.fixed_run() is None or second.fixed_run() is None:
        return None
    return DeviceChain(first, second)


def _axes(values: Sequence[ort.NodeArg]) -> dict[str, Axes]:
    return {value.name: value.shape for value in values}


def _at_fixed_batch(axes: Axes) -> tuple[int, ...]:
    return (_FIXED_BATCH, *(int(axis) for axis in axes[1:] if isinstance(axis, int)))


def _tensor(shape: tuple[int, ...], device: tuple[str, int]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, *device)


def _failed(provider: str, error: Exception) -> ModelError:
    return ModelError(f"the model failed while running on {provider!r}: {error}")
