"""Bundles, in which networks leave the project, and their uses."""

import os

# ONNX Runtime 1.32 for Linux counts its uses: it looks up hosts, and keeps an identifier and a database of events in
# the user's cache folder. It reads this variable on import, and every module here imports it after this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
