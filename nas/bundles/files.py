"""The names of the files of every bundle, beside those of its formats (see `nas.bundles.formats`)."""

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
PARITY = "parity.json"
CARD = "README.md"
