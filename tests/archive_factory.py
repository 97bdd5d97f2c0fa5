"""A small phantom archive with its cases table: real DICOM through the real writer."""

from __future__ import annotations

import csv
from pathlib import Path

from export.phantom import PhantomSettings, generate_case, write_case

PLANTED_NAME = "ZZYZXPLANTED^PATIENT"
PLANTED_ID = "PID-QWERTZUIOP"
SETTINGS = PhantomSettings(size=192, n_slices=4)


def write_small_archive(out: Path, labels: tuple[str, ...], n_cases: int) -> Path:
    """``n_cases`` per label; returns the path of cases.csv."""
    rows = []
    for label in labels:
        for seed in range(n_cases):
            case = generate_case(label, seed, SETTINGS)
            folder = out / case.case_id
            write_case(case, folder, patient_name=PLANTED_NAME)
            rows.append((case.case_id, case.case_id, label, "site-1", "phantom"))
    table = out / "cases.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "case_id", "label", "site", "verification"))
        writer.writerows(rows)
    return table


def write_query_study(out: Path, label: str = "IPF-ILD", seed: int = 99) -> Path:
    """One study that is in no archive above."""
    write_case(generate_case(label, seed, SETTINGS), out, patient_name=PLANTED_NAME)
    return out
