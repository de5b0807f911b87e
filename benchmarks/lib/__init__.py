"""What several experiments share: runs and their records, statistics, the trained table, searches without training."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, from which commands are run in processes of their own."""
