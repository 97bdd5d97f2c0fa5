"""Puts the optimized backbone of a bundle where later processes find it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ildsdk.bundle import Bundle
from ildsdk.runtime.cpu_features import cpu_features
from ildsdk.runtime.model_cache import CacheFolder, ModelCache
from ildsdk.runtime.ort_optimized import cache_key, open_optimized
from ildsdk.runtime.precision import choose_precision, int8_backbone
from ildsdk.settings import Precision

NetworkPlace = Literal["package", "user", "nowhere", "not-needed"]


def keep_backbone(
    bundle: Bundle,
    precision: Precision,
    user_folder: Path | None,
    *,
    n_threads: int,
    may_write: bool,
) -> NetworkPlace:
    """Keep the graph of the backbone that runs on this CPU, optimized for it.

    Parameters
    ----------
    precision : {"auto", "fp32", "int8", "fp16"}
        As queries will ask for it.
    user_folder : Path or None
        Folder of this account, for where nothing can be written beside the package.
    n_threads : int
        Threads to optimize with.
    may_write : bool
        False: only look.

    Returns
    -------
    {"package", "user", "nowhere", "not-needed"}
        Where it lies; ``"not-needed"`` for a precision that starts as fast without.

    Raises
    ------
    ConfigError
        The precision does not run on a CPU with this bundle.
    ModelError
        The backbone does not load.
    """
    running = choose_precision(
        precision,
        "cpu",
        bundle_default=bundle.default_precision,
        has_int8=int8_backbone(bundle, "cpu") is not None,
        cpu=cpu_features(),
    )
    if running != "fp32":
        return "not-needed"
    model_sha256 = bundle.checksums[bundle.backbone.name]
    key = cache_key(model_sha256)
    if key is None:
        return "nowhere"
    folders: dict[NetworkPlace, CacheFolder] = {"package": CacheFolder.beside_package()}
    if user_folder is not None:
        folders["user"] = CacheFolder.of_user(user_folder)
    # The first that can keep it, even where a later one has it: it serves all accounts.
    for place, folder in folders.items():
        if folder.find(key) is None and may_write:
            cache = ModelCache(read=(folder,), write=(folder,))
            open_optimized(bundle.backbone, model_sha256, n_threads, cache)
        if folder.find(key) is not None:
            return place
    return "nowhere"
