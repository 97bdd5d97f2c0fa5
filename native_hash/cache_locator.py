"""Compiled kernels out of a package folder that cannot be written to.

numba keeps compiled code beside the source, in ``__pycache__``, but looks there only when it
may also write there. A sealed install (a container image, a system package) whose cache was
baked by ``ildsdk warmup`` would be compiled anew by every user. So the baked folder is
read first here, and numba's own cache, where it found a folder for one, comes second.

This leans on parts of numba that are not its public interface, pinned by
``tests/test_native_hash_runtime.py``. Where they are gone, kernels are compiled anew in each
process: slower to start, never another answer.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from native_hash.lean_numba import numba


def stamp_by_content(dispatcher: Any) -> bool:
    """Tie compiled code to the content of every source file of its package.

    numba's own stamp is date and size of the one file a function stands in: it misses an
    edit of a function called from another file, and an upgrade whose files all carry the
    same date.

    Returns
    -------
    bool
        False where numba's private parts are gone: then compiled code must not be kept.
    """
    try:
        function, cache_file = dispatcher.py_func, dispatcher._cache._cache_file
        if not hasattr(cache_file, "_source_stamp"):
            return False
        cache_file._source_stamp = _content_stamp(Path(function.__code__.co_filename).parent)
    except (AttributeError, OSError):
        return False
    return True


@functools.lru_cache(maxsize=8)
def _content_stamp(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def read_baked_cache(dispatcher: Any) -> bool:
    """Let a jitted function be loaded from beside its source, where numba cannot write.

    Does nothing where numba keeps its cache there anyhow, or where the user named a folder
    (``NUMBA_CACHE_DIR``).

    Parameters
    ----------
    dispatcher : numba dispatcher
        Not yet compiled.

    Returns
    -------
    bool
        Whether compiled code of this function lies beside its source and will be tried.
        It may be of another processor: then it is compiled as without it.
    """
    if getattr(numba.config, "CACHE_DIR", ""):
        return False
    try:
        folder = Path(dispatcher.py_func.__code__.co_filename).parent / "__pycache__"
        if not folder.is_dir() or dispatcher.stats.cache_path == str(folder):
            return False
        baked = _baked_cache(dispatcher.py_func)
        if not (folder / f"{baked._impl.filename_base}.nbi").is_file():
            return False
        baked._cache_file._source_stamp = _content_stamp(folder.parent)
        dispatcher._cache = _BakedFirst(baked, dispatcher._cache)
    except (ImportError, AttributeError, TypeError, RuntimeError, OSError):
        return False
    return True


class _BakedFirst:
    """The cache a dispatcher talks to: reads the baked one first, writes numba's own only."""

    def __init__(self, baked: Any, own: Any) -> None:
        self.baked = baked
        self.own = own

    @property
    def cache_path(self) -> str:
        return str(self.baked.cache_path)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Compiled code for a signature, None where it must be compiled."""
        try:
            found = self.baked.load_overload(signature, target_context)
        except Exception:  # damaged or not readable: costs a compilation, no answer
            found = None
        return self.own.load_overload(signature, target_context) if found is None else found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        self.own.save_overload(signature, compiled)

    def enable(self) -> None:
        self.baked.enable()
        self.own.enable()

    def disable(self) -> None:
        self.baked.disable()
        self.own.disable()

    def flush(self) -> None:
        self.own.flush()


def _baked_cache(function: Any) -> Any:
    """The reader of numba itself, told to look into ``__pycache__`` without asking to write."""
    from numba.core.caching import CompileResultCacheImpl, FunctionCache

    in_tree: Any = next(
        (
            locator
            for locator in CompileResultCacheImpl._locator_classes
            if locator.__name__.lstrip("_") == "InTreeCacheLocator"  # underscored in older releases
        ),
        None,
    )
    if in_tree is None:
        raise ImportError("numba has no InTreeCacheLocator")
    locator = type("BakedLocator", (in_tree,), {"ensure_cache_path": lambda self: None})
    impl = type("BakedImpl", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    return type("BakedCache", (FunctionCache,), {"_impl_class": impl})(function)
