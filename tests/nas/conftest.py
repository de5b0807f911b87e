"""Data that several of these tests train on."""

import pytest

from nas.data import Dataset, load


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", subset=128)
