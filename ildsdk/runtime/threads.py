"""One thread budget for the whole process: what affinity and cgroup really grant."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """CPUs this process may use, at least 1: the smaller of its affinity and its cgroup quota.

    ``os.cpu_count`` counts the machine; inside a container or under ``taskset`` that makes
    more threads than cores, which was measured three times slower for the network.
    """
    if hasattr(os, "sched_getaffinity"):
        n_cpus = len(os.sched_getaffinity(0))
    else:
        n_cpus = os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    return max(1, n_cpus if quota is None else min(n_cpus, math.ceil(quota)))


def _cgroup_quota(cgroup: Path) -> float | None:
    """CPU quota in cores from cgroup v2 or v1, None where there is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return cores if cores > 0 else None
