"""The names of the files of every bundle, beside those of its formats (see `nas.bundles.formats`), and their limit."""

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
PARITY = "parity.json"
CARD = "README.md"
SUMS = "SHA256SUMS"

MAX_FILE = 2**30
"""The limit in bytes of a file: more than 200 million parameters and their graph."""
