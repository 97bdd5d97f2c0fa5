"""Compiled kernels from the cache without starting numba's processor target.

Before numba loads compiled code it imports and registers all it knows to compile, about 70
modules: 0.12 s of the first query of a process. Code that is compiled already needs no more than
the addresses of a few C functions; the rest is started when a kernel must be compiled.

Beside machine code the cache keeps the code's LLVM bitcode, for kernels that are compiled later and
call this one; numba parses it at each load, a third of the time. Here it is parsed when it
is asked for (:mod:`native_hash.loaded_library`).

This leans on parts of numba that are not its public interface and is used with the releases it was
tested with (:data:`TESTED`) only; with others numba starts as it always does.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from native_hash import array_types
from native_hash.lean_numba import numba
from native_hash.starting import start_numba

TESTED = ("0.68.",)
"""Beginnings of the numba versions whose compiled code is known to need no more."""

if numba.__version__.startswith(TESTED):
    array_types.register()


def load_quickly(dispatcher: Any) -> bool:
    """Let a jitted function load its compiled code without starting the target first.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Not yet compiled, its cache as it shall be.

    Returns
    -------
    bool
        False where it has no cache, or this release of numba is not known: then the target must
        be started.
    """
    if not numba.__version__.startswith(TESTED):
        return False
    cache = dispatcher._cache
    parts = [getattr(cache, "baked", None), getattr(cache, "own", None), cache]
    found = [part for part in parts if hasattr(part, "_load_overload")]
    for part in found:
        part.load_overload = functools.partial(_load, part)
    if found:  # extensions of numba matter to compiling only, and looking for them takes a while
        dispatcher._compilation_chain_init_hook = _nothing
    return bool(found)


def _load(cache: Any, signature: Any, target_context: Any) -> Any:
    """Compiled code for a signature; None where it must be compiled, for which all is ready then.

    A dispatcher calls this under numba's compiler lock.
    """
    from numba.core import entrypoints, environment

    from native_hash.loaded_library import parsing_bitcode_late, register_helpers

    register_helpers()
    rebuild = environment._rebuild_env
    environment._rebuild_env = functools.partial(_rebuild_environment, rebuild)
    try:
        with (
            parsing_bitcode_late(target_context),
            cache._guard_against_spurious_io_errors(),
        ):
            found = cache._load_overload(signature, target_context)
            if found is not None:
                return found
    finally:
        environment._rebuild_env = rebuild
    start_numba()
    entrypoints.init_all()  # type: ignore[no-untyped-call]
    return None


def _nothing() -> None:
    pass


def _rebuild_environment(rebuild: Any, module: str, constants: Any, name: str) -> Any:
    """Environment of a function that was compiled into a kernel.

    Its globals serve interpreted code, of which a kernel has none: where it is one of numba's own
    functions, its module need not be imported for them.
    """
    from numba.core.environment import Environment, lookup_environment

    if not module.startswith("numba.") or module in sys.modules or lookup_environment(name):  # type: ignore[no-untyped-call]
        return rebuild(module, constants, name)
    environment = Environment({"__name__": module})
    environment.consts[:] = constants
    environment.env_name = name
    Environment._memo[name] = environment
    return environment
