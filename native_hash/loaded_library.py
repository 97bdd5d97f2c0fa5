"""Libraries of machine code out of numba's cache, whose bitcode is parsed only when it is needed.

For the releases of numba that :mod:`native_hash.quick_load` was tested with, and used by it alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]
from numba.core.runtime.nrt import rtsys

# Code with such symbols (recursion) is patched while numba goes through its parsed bitcode.
_UNRESOLVED = b".numba.unresolved"


@functools.cache
def register_helpers() -> None:
    """Tell LLVM the addresses of the C functions that allocate and free arrays.

    numba does so when it compiles its run-time library, whose functions stand in the machine code
    of each kernel that calls them: that waits until something is compiled.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class LoadedLibrary(JITCodeLibrary):
    """A library that was never compiled in this process.

    Of its module the execution engine asks for the machine code only, which the object cache has:
    an empty module of the same name stands for it.
    """

    _bitcode: bytes

    @property  # numba sets the attribute once and never again in a loaded library
    def _shared_module(self) -> Any:  # type: ignore[override]
        """What other libraries are linked with, and take functions from for inlining."""
        parsed = self.__dict__.get("_parsed")
        if parsed is None:
            parsed = self.__dict__["_parsed"] = llvm.parse_bitcode(self._bitcode)
            self._codegen._engine._load_defined_symbols(parsed)  # type: ignore[no-untyped-call]
        return parsed

    def get_pointer_to_function(self, name: str) -> int:
        """Address of a function of the machine code; 0 where it has none of that name."""
        address: int = self._codegen._engine.get_function_address(name)
        return address


@contextlib.contextmanager
def parsing_bitcode_late(target_context: Any) -> Iterator[None]:
    """Make the target load cached libraries as :class:`LoadedLibrary` in the ``with`` block.

    Parameters
    ----------
    target_context : numba.core.cpu.CPUContext
        Under numba's compiler lock.
    """
    codegen = target_context.codegen()
    unserialize = codegen.unserialize_library

    def as_ever(state: Any) -> Any:
        rtsys.initialize(target_context)
        return unserialize(state)

    codegen.unserialize_library = lambda state: _library(codegen, as_ever, state)
    try:
        yield
    finally:
        del codegen.unserialize_library


def _library(codegen: Any, as_ever: Callable[[Any], Any], state: Any) -> Any:
    name, kind, data = state
    if kind != "object" or _UNRESOLVED in data[1]:
        return as_ever(state)
    library = codegen.create_library(name)
    # A codegen makes libraries of one class; this one adds no state of its own.
    library.__class__ = LoadedLibrary
    machine_code, library._bitcode = data
    library.enable_object_caching()
    library._set_compiled_object(machine_code)
    library._final_module = llvm.parse_assembly(str(codegen._create_empty_module(name)))
    library._finalize_final_module()
    return library
