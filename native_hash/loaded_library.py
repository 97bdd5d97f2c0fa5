"""Libraries of machine code out of numba's cache, whose bitcode is parsed only when it is needed.

For the releases of numba that :mod:`native_hash.quick_load` was tested with, and used by it alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary

# Code with such symbols (recursion) is patched while numba goes through its parsed bitcode.
_UNRESOLVED = b".numba.unresolved"


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
def parsing_bitcode_late(codegen: Any) -> Iterator[None]:
    """Make ``codegen`` load cached libraries as :class:`LoadedLibrary` in the ``with`` block.

    Parameters
    ----------
    codegen : numba.core.codegen.JITCPUCodegen
        That of the CPU target. Under numba's compiler lock.
    """
    as_ever = codegen.unserialize_library
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
