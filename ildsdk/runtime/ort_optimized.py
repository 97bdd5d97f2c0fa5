"""Sessions on the CPU from a graph that ONNX Runtime optimized before, for a quick start.

Optimizing reads all weights, folds what decompresses them and lays them out for this
processor. The result is kept with its weights in a file of their own, which a later session
maps into memory instead of reading: the same numbers, bit for bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.cpu_features import cpu_features
from ildsdk.runtime.model_cache import CacheKey, ModelCache
from ildsdk.runtime.ort_session import OrtSession, session_options, start
from ildsdk.runtime.providers import CPU_PROVIDERS

_GRAPH_NAME = "graph.onnx"
_WEIGHTS_NAME = "weights.bin"


def open_optimized(
    model: Path,
    model_sha256: str,
    n_threads: int,
    cache: ModelCache,
) -> OrtSession:
    """Load a float32 model on the CPU, from a cache where it is there, and fill the cache else.

    Parameters
    ----------
    model : Path
        ONNX file, checked by the bundle beforehand.
    model_sha256 : str
        SHA-256 (hex) of the file.
    n_threads : int
        As in :func:`ildsdk.runtime.ort_session.open_session`.
    cache : ModelCache

    Raises
    ------
    ModelError
        The model itself does not load.
    """
    key = cache_key(model_sha256)
    session = None
    if key is not None:
        session = _from_entry(cache.find(key), n_threads)
        session = session or _keeping(cache, key, model, n_threads)
    return session or _start(model, session_options(n_threads, "fp32"))


def cache_key(model_sha256: str) -> CacheKey | None:
    """What the optimized form of a model depends on; None where the processor cannot be told."""
    cpu = cpu_features()
    if not cpu.names:
        return None
    return CacheKey(
        model_sha256=model_sha256,
        facts={
            "engine": f"onnxruntime {ort.__version__}",
            "build": ort.get_build_info(),
            "optimization": "all",
            "machine": cpu.machine,
            "cpu": hashlib.sha256(" ".join(sorted(cpu.names)).encode()).hexdigest(),
        },
    )


def _start(model: Path, options: ort.SessionOptions) -> OrtSession:
    return start(model, "cpu", CPU_PROVIDERS, options)


def _from_entry(entry: Path | None, n_threads: int) -> OrtSession | None:
    if entry is None:
        return None
    options = session_options(n_threads, "fp32")
    # Nothing is left to optimize, and a second pass could change the sums.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return _start(entry / _GRAPH_NAME, options)
    except ModelError:  # removed meanwhile
        return None


def _keeping(cache: ModelCache, key: CacheKey, model: Path, n_threads: int) -> OrtSession | None:
    """Start a session that writes its optimized graph; None where it could not be written."""
    options = session_options(n_threads, "fp32")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", _WEIGHTS_NAME
    )
    with cache.draft(key) as draft:
        if draft is None:
            return None
        options.optimized_model_filepath = str(draft.folder / _GRAPH_NAME)
        try:
            session = _start(model, options)
        except ModelError:  # of a full disk, or of the model: without a cache it will show
            return None
        kept = _from_entry(draft.folder, n_threads)
        if kept is not None and _answer_alike(session, kept):
            draft.publish()
        return session


def _answer_alike(session: OrtSession, other: OrtSession) -> bool:
    """Whether two sessions give the same bits for one made-up input."""
    generator = np.random.default_rng(0)
    inputs = {}
    for name, (_, *axes) in session.input_shapes.items():
        shape = [axis if isinstance(axis, int) else 1 for axis in axes]
        inputs[name] = generator.random((1, *shape), np.float32)
    names = list(session.output_shapes)
    try:
        pairs = zip(session.run_all(names, inputs), other.run_all(names, inputs), strict=True)
        return all(one.tobytes() == two.tobytes() for one, two in pairs)
    except ModelError:
        return False
