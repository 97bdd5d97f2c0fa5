"""Threads of every library in this process, set before numpy and torch are imported.

Imported first by ``conftest.py``, and by nothing that is timed. ILDSDK_BENCH_THREADS gives another
budget than 2, for ours and for the rivals alike.
"""

from __future__ import annotations

import os

N_THREADS = int(os.environ.get("ILDSDK_BENCH_THREADS", "2"))

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = str(N_THREADS)
