"""Execution providers, sessions and the thread budget; onnxruntime lives only here."""

import os

# Builds of ONNX Runtime from 1.29 on start a telemetry client when they are imported: it keeps a
# device id in the user's cache folder, sends a first event, and has threads for which the exit of
# a forked child waits without end. `disable_telemetry_events` comes too late for all of these;
# this variable is read at import, and no module here imports onnxruntime before this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
