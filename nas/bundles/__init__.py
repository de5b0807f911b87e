"""Bundles: what leaves the house, and what is done with it."""

import os

# ONNX Runtime 1.32 for Linux counts its uses: it looks up hosts, and keeps an identifier and a database of events in
# the user's cache folder. It reads this when it is imported, which every module here does after this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
