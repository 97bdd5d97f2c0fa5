"""Run by qemu: deep features of one image by a graph, with session options, into a file.

python qemu_session.py MODEL IMAGE.npy OUT.npy [KEY=VALUE ...]
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def main(model: str, image: str, out: str, *entries: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for entry in entries:
        key, _, value = entry.partition("=")
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.save(out, session.run(["deep_features"], {"image": np.load(image)})[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
