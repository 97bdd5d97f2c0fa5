"""pydicom with all its decoders, imported in one piece; imported where it is needed first.

pydicom's modules import each other in circles, and some only when a frame is decoded. Python lets
two threads that start on different ends of such a circle see half a module. Here one thread
imports everything, and whoever imports this module meanwhile waits for it. No other module of
ildsdk imports pydicom or a decoder.

Importing this never fails: what is broken stands in ``BROKEN_PACKAGES``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Final

# What is imported -> the package that installs it.
_PACKAGES: Final = {
    "gdcm": "python-gdcm",
    "jpeg_ls": "pyjpegls",
    "pylibjpeg": "pylibjpeg",
    "openjpeg": "pylibjpeg-openjpeg",
    "PIL": "pillow",
    "pydicom": "pydicom",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pydicom:
    """What is used of pydicom; the attributes are its functions of these names."""

    encapsulate: Callable[..., bytes]
    get_frame: Callable[..., bytes]
    get_decoder: Callable[[str], Any]
    uid_class: Callable[[str], Any]


def import_pydicom() -> Pydicom | None:
    """Import everything that decoding a frame needs; None where pydicom cannot be imported."""
    try:
        # Imported by pydicom while it decodes.
        import pydicom.dataset  # noqa: F401
        from pydicom.encaps import encapsulate, get_frame
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID
    except Exception:
        # A compiled decoder built for another numpy raises anything, and pydicom passes it on.
        return None
    with contextlib.suppress(Exception):
        # Else pillow imports its whole list of formats on a thread that meets a damaged JPEG.
        from PIL import Jpeg2KImagePlugin, JpegImagePlugin  # noqa: F401
    return Pydicom(
        encapsulate=encapsulate, get_frame=get_frame, get_decoder=get_decoder, uid_class=UID
    )


def broken_packages() -> tuple[str, ...]:
    """Packages that are installed and cannot be imported, pydicom last."""
    broken = []
    for module, package in _PACKAGES.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # it is there, and something it needs is not
                broken.append(package)
        except Exception:
            broken.append(package)
    return tuple(broken)


PYDICOM: Final = import_pydicom()
BROKEN_PACKAGES: Final = broken_packages()
