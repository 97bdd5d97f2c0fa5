"""Which instructions this processor has, as far as a choice here depends on them."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FAST_INT8 = {
    "x86_64": ("avx512vnni", "avxvnni"),
    "arm64": ("dotprod", "i8mm"),
}
_LLVM_NAMES = {"asimddp": "dotprod"}  # where Linux says something else


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CpuFeatures:
    """Instruction sets of the processor.

    Attributes
    ----------
    machine : str
        ``"x86_64"``, ``"arm64"`` or what the system says.
    names : frozenset of str
        Features by LLVM's names without separators (``"avx512vnni"``, ``"dotprod"``); empty
        where they cannot be told.
    """

    machine: str
    names: frozenset[str]

    @property
    def has_fast_int8(self) -> bool:
        """Whether one instruction adds products of 8-bit numbers in 32 bits.

        Without one, 8-bit networks are slower than with it, and on x86 the usual instruction
        pair saturates at 16 bits.
        """
        return not self.names.isdisjoint(_FAST_INT8.get(self.machine, ()))


def cpu_features(cpuinfo: Path = _CPUINFO) -> CpuFeatures:
    """Features of this processor.

    Parameters
    ----------
    cpuinfo : Path
        Linux' description of the processors.

    Notes
    -----
    Linux' own list costs 0.1 ms; elsewhere LLVM is asked, which numba brings. numpy's list is
    private and lacks AVX-VNNI and i8mm. Where neither answers there are no features: then nothing
    is chosen that needs one.
    """
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)
    names = _from_cpuinfo(cpuinfo) or _from_llvm()
    return CpuFeatures(machine=machine, names=names)


def _from_cpuinfo(cpuinfo: Path) -> frozenset[str]:
    try:
        with cpuinfo.open(encoding="ascii", errors="replace") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):  # x86, arm
                    return frozenset(_normalized(name) for name in value.split())
    except OSError:
        pass
    return frozenset()


def _from_llvm() -> frozenset[str]:
    try:
        from llvmlite.binding import get_host_cpu_features

        found = get_host_cpu_features()
    except (ImportError, RuntimeError):  # numba left out; a processor that LLVM cannot tell
        return frozenset()
    return frozenset(_normalized(name) for name, is_there in found.items() if is_there)


def _normalized(name: str) -> str:
    plain = name.lower().replace("_", "").replace("-", "").replace(".", "")
    return _LLVM_NAMES.get(plain, plain)
