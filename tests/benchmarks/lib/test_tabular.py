"""The trained table that is kept: it is whole, and of the space as it is today."""

from __future__ import annotations

import numpy as np

from benchmarks.lib import tabular
from benchmarks.lib.tabular import EPOCHS, SPACE, TASK, Table


def test_the_space_is_complete_and_each_architecture_in_it_once() -> None:
    found = tabular.candidates()
    assert len(found) == len({each.digest for each in found}) == 648
    assert len({each.recipe for each in found}) == 1
    assert all(SPACE.decode(SPACE.encode(each), TASK, EPOCHS) == each for each in found[::50])
    assert [each.digest for each in tabular.candidates()] == [each.digest for each in found]


def test_the_table_that_is_there_is_whole() -> None:
    found, candidates = Table.read(), tabular.candidates()
    assert found.digests.tolist() == [candidate.digest for candidate in candidates]
    assert found.all_values.shape == (648, 2, EPOCHS, 3)
    assert tabular.FILE.stat().st_size < 1e6
    costs = [SPACE.cost(candidate.spec, TASK) for candidate in candidates]
    assert found.params.tolist() == [cost.params for cost in costs]
    assert found.macs.tolist() == [cost.macs for cost in costs]
    psnr, accuracy, stability = np.moveaxis(found.all_values, -1, 0)
    # The noisy input has 14.15 dB.
    assert np.nanmedian(psnr[:, :, -1]) > 18
    assert np.nanmax(psnr) < 25
    assert np.nanmedian(accuracy[:, :, -1]) > 90
    assert np.nanmax(accuracy) <= 100
    assert np.nanmax(stability) <= 1
