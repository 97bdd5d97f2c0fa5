"""The TensorRT engines that one bundle needs."""

from __future__ import annotations

from ildsdk.bundle import Bundle
from ildsdk.runtime.precision import int8_backbone, no_int8
from ildsdk.runtime.provider_options import GpuPrecision
from ildsdk.runtime.tensorrt_engine import EngineRequest


def engine_requests(
    bundle: Bundle, precision: GpuPrecision, *, batch_max: int = 1, device_id: int = 0
) -> list[EngineRequest]:
    """Engines that a query with this bundle reads on TensorRT.

    Parameters
    ----------
    bundle : Bundle
    precision : {"fp32", "fp16", "int8"}
        Of the backbone. The fusion network and the graph of activation maps are small and take
        features of any size: they stay in float32.
    batch_max : int
    device_id : int

    Raises
    ------
    ConfigError
        The bundle has no 8-bit network for TensorRT.
    """
    backbone = int8_backbone(bundle, "tensorrt") if precision == "int8" else bundle.backbone
    if backbone is None:
        raise no_int8("tensorrt")
    others = [bundle.fusion, *([bundle.explain] if bundle.explain is not None else [])]
    return [
        EngineRequest(model=model, precision=arithmetic, batch_max=batch_max, device_id=device_id)
        for model, arithmetic in [
            (backbone, precision),
            *((model, "fp32") for model in others),
        ]
    ]
