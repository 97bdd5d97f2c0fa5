"""Numba's types of plain arrays, found without ``numpy.ma``.

Numba looks whether an array is a masked one, which makes numpy import that package: 0.01 s of
the first query of a process. For the releases that :mod:`native_hash.quick_load` was tested with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.errors import NumbaNotImplementedError
from numba.core.typing.typeof import typeof_impl
from numba.np import numpy_support


def register() -> None:
    """Take over what numba does with an array, for arrays of no subclass."""
    as_ever = typeof_impl.dispatch(np.ndarray)

    def type_of_array(value: Any, context: Any) -> Any:
        if type(value) is not np.ndarray:
            return as_ever(value, context)
        try:
            dtype = numpy_support.from_dtype(value.dtype)
        except NumbaNotImplementedError:
            return as_ever(value, context)  # says it in its own words
        layout = numpy_support.map_layout(value)
        return types.Array(dtype, value.ndim, layout, readonly=not value.flags.writeable)

    typeof_impl.register(np.ndarray, type_of_array)
