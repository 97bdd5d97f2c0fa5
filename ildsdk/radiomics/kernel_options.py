"""How every radiomics kernel is compiled, in one place (house style, section 6)."""

from __future__ import annotations

from typing import Any

KERNEL_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    # never True: that would let the compiler assume that there is no NaN
    "fastmath": {"reassoc", "contract"},
}
