"""Data that several of these tests train on, and what those of whole searches share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.data.splits import Dataset, load


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", subset=128)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all tests of a file: starting it takes seconds. It claims 2 GPUs, which nothing checks."""
    import ray

    from nas.engine.session import QUIET, _without_helpers, have_token

    have_token()
    fewest = {"prestart_worker_first_driver": False}  # otherwise five workers start, of which most get no work
    with pytest.MonkeyPatch.context() as patch, _without_helpers():
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the toy space
        ray.init("local", num_cpus=5, num_gpus=2, include_dashboard=False, _system_config=fewest, **QUIET)
    yield
    ray.shutdown()


@pytest.fixture
def make(one_ray: None, tmp_path: Path, digits: Dataset) -> Iterator[Any]:
    """Makes a `Search` of toy networks: (space, changes of its configuration) -> search."""
    from toy_search import Search
    from toy_space import ToySpace

    made: list[Search] = []

    def build(space: ToySpace | None = None, **changes: Any) -> Search:
        made.append(Search(tmp_path, digits, space or ToySpace(scratch=str(tmp_path)), **changes))
        return made[-1]

    yield build
    for search in made:
        search.ledger.close()
