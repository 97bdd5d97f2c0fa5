"""What the index knows about one slice beside its embedding."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re

PATIENT_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ItemRecord:
    """One indexed slice.

    Attributes
    ----------
    item_id : str
        Stable key, unique in the index: see :func:`make_item_id`.
    case_id, label : str
        The diagnosed case and its diagnosis; a case has one label.
    frame : int or None
        Frame number from 1 in a multi-frame object.
    position_mm : float or None
        Position along the slice normal in mm.
    site, verification : str or None
        Where the case comes from, how its diagnosis was proven.
    patient_key : str or None
        Salted key of the patient, set by the index; None when handed to ``Index.add``.
    """

    item_id: str
    case_id: str
    label: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None = None
    position_mm: float | None = None
    site: str | None = None
    verification: str | None = None
    patient_key: str | None = None


def make_item_id(sop_instance_uid: str, frame: int | None = None) -> str:
    """Stable key of a slice: its SOPInstanceUID, with ``#frame`` for a multi-frame object."""
    return sop_instance_uid if frame is None else f"{sop_instance_uid}#{frame}"


def patient_key(salt: bytes, patient_hash: str) -> str:
    """Key under which an index remembers a patient: HMAC-SHA256, hex.

    Parameters
    ----------
    salt : bytes
        The index's own; without it keys of two indexes cannot be compared.
    patient_hash : str
        Hash of the PatientID as study intake computes it.
    """
    return hmac.new(salt, patient_hash.encode(), hashlib.sha256).hexdigest()
