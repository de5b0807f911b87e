"""Code that experiments share: runs and their records, statistics, the trained table, searches that train nothing."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, whose commands are run in processes of their own."""
