"""Synthetic chest CT for training and demonstration: anatomy, disease patterns, scanner, DICOM."""

from __future__ import annotations

from export.phantom.archive import write_archive
from export.phantom.case import generate_case
from export.phantom.dicom_writer import write_case
from export.phantom.settings import LABELS, PhantomCase, PhantomSettings, case_id_of

__all__ = [
    "LABELS",
    "PhantomCase",
    "PhantomSettings",
    "case_id_of",
    "generate_case",
    "write_archive",
    "write_case",
]
