"""The runtime: text in, score out; the message store; the feed. Needs no training library."""

import os

# onnxruntime tells its makers about its use from version 1.32 on, unless told not to before import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
