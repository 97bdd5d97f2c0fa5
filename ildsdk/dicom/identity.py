"""Identifiers: the patient's pseudonym, and UIDs that are missing or are no UIDs.

PatientID leaves this package only as a SHA-256 with a domain prefix. IssuerOfPatientID is left
out on purpose: it is often missing on one side of an exchange, and the hash
serves to leave a patient's own scans out of the answers. Missing such an exclusion
would flatter every answer; taking two hospitals' equal ids for one patient only drops a few items.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

_PATIENT_DOMAIN: Final = "ildsdk/patient-id/1"
_UID_DOMAIN: Final = "ildsdk/uid/1"
_PLACEHOLDERS: Final = frozenset(
    {"ANON", "ANONYM", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "DEIDENTIFIED", "DE-IDENTIFIED"}
    | {"REMOVED", "REDACTED", "UNKNOWN", "NONE", "NULL", "NA", "N/A", "NOID", "NO_ID", "NO ID"}
    | {"PATIENT", "PATIENTID", "PATIENT ID", "TEST"}
)
_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")


def patient_hash(patient_id: str) -> str | None:
    """Hex SHA-256 of the domain prefix and the normalized PatientID; None for an empty id.

    Normalized: outer blanks and NULs removed, inner runs of blanks made one, upper case. What
    anonymizers write for everybody (a short list of words, or only zeros, X, dashes,
    dots, question marks) names no patient: None, as if it were missing.
    """
    normalized = " ".join(patient_id.replace("\0", " ").split()).upper()
    if normalized in _PLACEHOLDERS or not normalized.strip("0X-_.?* "):
        return None
    return hashlib.sha256(f"{_PATIENT_DOMAIN}\n{normalized}".encode()).hexdigest()


def valid_uid(text: str) -> str | None:
    """The UID, or None where the text is missing or no UID (it might be a name)."""
    return text if _UID.fullmatch(text) else None


def derived_uid(*facts: str) -> str:
    """A stable UID (``2.25.`` form) for an object that lacks one, from facts that tell it apart."""
    digest = hashlib.sha256("\n".join((_UID_DOMAIN, *facts)).encode("utf-8", "replace")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
