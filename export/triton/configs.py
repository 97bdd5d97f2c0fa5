"""``config.pbtxt`` of each model, and its variants for TensorRT and for the CPU.

A variant lies in ``configs/NAME.pbtxt`` and is chosen with ``tritonserver
--model-config-name=NAME``; a model without it takes its ``config.pbtxt``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from export.triton.pbtxt import Enum, Message
from export.triton.tensors import Graph, Tensor
from ildsdk.errors import ConfigError
from ildsdk.runtime.provider_options import (
    DEFAULT_BUILDER_LEVEL,
    DEFAULT_WORKSPACE_BYTES,
    CudaOptions,
    ShapeProfile,
)

BACKBONE, FUSION, ENSEMBLE = "ildsdk_backbone", "ildsdk_fusion", "ildsdk_embed"
CUDA, CPU, CPU_INT8 = "config", "cpu", "cpu-int8"
TENSORRT = {"tensorrt-fp32": "FP32", "tensorrt-fp16": "FP16"}
BACKBONE_FILE, BACKBONE_INT8_FILE, FUSION_FILE = (
    "backbone.onnx",
    "backbone-int8.onnx",
    "fusion.onnx",
)
_PASSED = "deep_features"
# Triton's backend writes its own defaults over these two where its model parameters do not name
# them, whatever the accelerator's parameters say; and there they are numbers.
_NUMBERS = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TritonSettings:
    """What the configurations are written with.

    Attributes
    ----------
    max_batch_size : int
        Largest batch Triton puts together.
    queue_delay_us : int
        How long a request may wait for others, in microseconds.
    instances : int
        Copies of each network on each GPU (or on the CPU).
    engine_folder : str
        Folder on the server in which TensorRT makes one for engines of each precision, with
        that appended to the name. They are executed: nobody but the server may write it.
    metric_tag : str
        Stands beside each model's metrics.
    """

    max_batch_size: int = 8
    queue_delay_us: int = 2000
    instances: int = 1
    engine_folder: str = "/var/cache/ildsdk/engines"
    metric_tag: str = ""

    def __post_init__(self) -> None:
        for name, least in (("max_batch_size", 1), ("queue_delay_us", 0), ("instances", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {least} or more")


def backbone_configs(
    graph: Graph, settings: TritonSettings, *, has_int8: bool
) -> dict[str, Message]:
    """Configurations of the backbone by variant.

    Parameters
    ----------
    graph : Graph
        Of ``backbone.onnx``.
    settings : TritonSettings
    has_int8 : bool
        Whether the version folder holds ``backbone-int8.onnx`` too.
    """
    # Only what the fusion network takes: the feature map would be copied for nothing.
    outputs = [graph.outputs[_PASSED]]
    return _network_configs(BACKBONE, BACKBONE_FILE, graph, outputs, settings, int8=has_int8)


def fusion_configs(graph: Graph, settings: TritonSettings) -> dict[str, Message]:
    """Configurations of the fusion network by variant; TensorRT has nothing to win on it."""
    configs = _network_configs(
        FUSION, FUSION_FILE, graph, list(graph.outputs.values()), settings, int8=False
    )
    return {name: config for name, config in configs.items() if name not in TENSORRT}


def ensemble_config(backbone: Graph, fusion: Graph, settings: TritonSettings) -> Message:
    """Configuration of the two networks as one model: image and radiomics to embedding."""
    radiomics = [tensor for name, tensor in fusion.inputs.items() if name != _PASSED]
    outputs = list(fusion.outputs.values())
    return {
        "name": ENSEMBLE,
        "platform": "ensemble",
        "max_batch_size": settings.max_batch_size,
        **_tensors(list(backbone.inputs.values()) + radiomics, outputs),
        "version_policy": {"latest": {"num_versions": 1}},
        "ensemble_scheduling": {
            "step": [
                _step(BACKBONE, backbone.inputs, [_PASSED]),
                _step(FUSION, fusion.inputs, fusion.outputs),
            ]
        },
        **_tags(settings),
    }


def _network_configs(
    name: str,
    file_name: str,
    graph: Graph,
    outputs: list[Tensor],
    settings: TritonSettings,
    *,
    int8: bool,
) -> dict[str, Message]:
    def config(file: str, kind: str, **more: Message | list[Message]) -> Message:
        return {
            "name": name,
            "backend": "onnxruntime",
            "default_model_filename": file,
            "max_batch_size": settings.max_batch_size,
            **_tensors(list(graph.inputs.values()), outputs),
            "version_policy": {"latest": {"num_versions": 1}},
            "instance_group": [{"count": settings.instances, "kind": Enum(kind)}],
            "dynamic_batching": {"max_queue_delay_microseconds": settings.queue_delay_us},
            "model_warmup": _warmups(graph, settings.max_batch_size),
            **more,
            **_tags(settings),
        }

    cuda, parameters = _cuda_options()
    configs = {
        CUDA: config(
            file_name, "KIND_GPU", optimization=_accelerators(cuda=cuda), parameters=parameters
        ),
        CPU: config(file_name, "KIND_CPU"),
    }
    if int8:
        configs[CPU_INT8] = config(BACKBONE_INT8_FILE, "KIND_CPU")
    for variant, precision in TENSORRT.items():
        tensorrt = _tensorrt_options(graph, precision, settings)
        # CUDA takes what TensorRT has no kernel for.
        accelerators = _accelerators(tensorrt=tensorrt, cuda=cuda)
        configs[variant] = config(
            file_name, "KIND_GPU", optimization=accelerators, parameters=parameters
        )
    return configs


def _tensors(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Message:
    return {
        "input": [tensor.config() for tensor in inputs],
        "output": [tensor.config() for tensor in outputs],
    }


def _step(name: str, inputs: Sequence[str] | Mapping[str, Tensor], outputs: object) -> Message:
    def pairs(names: object) -> list[Message]:
        return [{"key": one, "value": one} for one in names]  # type: ignore[attr-defined]

    return {
        "model_name": name,
        "model_version": -1,
        "input_map": pairs(inputs),
        "output_map": pairs(outputs),
    }


def _warmups(graph: Graph, max_batch_size: int) -> list[Message]:
    """Runs before the first request: one slice, and the largest batch."""
    return [
        {
            "name": f"batch of {batch}",
            "batch_size": batch,
            "inputs": [
                {
                    "key": tensor.name,
                    "value": {
                        "data_type": Enum(tensor.data_type),
                        "dims": list(tensor.dims),
                        "random_data": True,
                    },
                }
                for tensor in graph.inputs.values()
            ],
        }
        for batch in sorted({1, max_batch_size})
    ]


def _accelerators(**options: Mapping[str, str]) -> Message:
    return {
        "execution_accelerators": {
            "gpu_execution_accelerator": [
                {
                    "name": name,
                    "parameters": [{"key": key, "value": value} for key, value in values.items()],
                }
                for name, values in options.items()
            ]
        }
    }


def _cuda_options() -> tuple[dict[str, str], list[Message]]:
    """Options of the CUDA provider: the accelerator's, and those among the model's parameters."""
    options = CudaOptions().to_ort()[1]
    # Triton chooses the device. Its batches differ in size, and a CUDA graph is of one size.
    del options["device_id"], options["enable_cuda_graph"]
    parameters: list[Message] = [
        {"key": name, "value": {"string_value": str(values.index(options.pop(name)))}}
        for name, values in _NUMBERS.items()
    ]
    return options, parameters


def _tensorrt_options(graph: Graph, precision: str, settings: TritonSettings) -> dict[str, str]:
    # ONNX Runtime's names of engines leave the weights out: in one folder a bundle trained anew
    # would run the engine of the old one.
    folder = f"{settings.engine_folder}-{precision.lower()}"
    shapes = {name: [None, *tensor.dims] for name, tensor in graph.inputs.items()}
    profile = ShapeProfile.of_batches(shapes, optimum=1, maximum=settings.max_batch_size)
    return {
        "precision_mode": precision,
        "max_workspace_size_bytes": str(DEFAULT_WORKSPACE_BYTES),
        "trt_builder_optimization_level": str(DEFAULT_BUILDER_LEVEL),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        **profile.texts(),
    }


def _tags(settings: TritonSettings) -> Message:
    if not settings.metric_tag:
        return {}
    return {"metric_tags": [{"key": "bundle", "value": settings.metric_tag}]}
