"""Points that arrive one after the other are ranked as all of them at once would be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.search.pareto import contributions, fronts, net_gaps
from nas.search.ranking import Ranking

# A coarse grid makes ties and repeated points common.
points = st.integers(1, 4).flatmap(
    lambda d: arrays(np.float64, st.tuples(st.integers(1, 12), st.just(d)), elements=st.integers(0, 5).map(float))
)


@given(points, st.data())
def test_as_all_at_once(values: np.ndarray, data: st.DataObject) -> None:
    maximize = data.draw(st.lists(st.booleans(), min_size=values.shape[1], max_size=values.shape[1]))
    reference = [-1.0 if up else 6.0 for up in maximize]
    ranking = Ranking(reference, maximize)
    for size in range(1, len(values) + 1):
        ranking.add(size - 1, values[size - 1])
        expected = [front.tolist() for front in fronts(values[:size], maximize)]
        assert [sorted(front.numbers.tolist()) for front in ranking.fronts] == expected
        assert len(ranking) == size
        for rank, (front, rows) in enumerate(zip(ranking.fronts, expected, strict=True)):
            assert {ranking.rank(values[row]) for row in rows} == {rank}
            order = np.argsort(front.numbers)
            if data.draw(st.booleans()):  # contributions that nobody asked for are not known when the next point comes
                assert front.contributions()[order] == pytest.approx(contributions(values[rows], reference, maximize))
            assert front.gaps()[order] == pytest.approx(net_gaps(values[rows], maximize))


def test_only_what_a_new_point_cuts_into_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import nas.search.ranking as module

    computed: list[int] = []
    exclusive = module.exclusive

    def noted(losses: np.ndarray, row: int, ref: np.ndarray) -> tuple[float, np.ndarray]:
        computed.append(row)
        return exclusive(losses, row, ref)

    monkeypatch.setattr(module, "exclusive", noted)
    ranking = Ranking([0.0, 0.0], [True, True])
    for number in range(100):
        ranking.add(number, (1.0 + number, 100.0 - number))
    ranking.fronts[0].contributions()
    assert len(computed) == 100
    computed.clear()
    ranking.add(100, (50.5, 50.5))
    assert len(ranking.fronts[0].contributions()) == 101
    assert sorted(computed) == [49, 50, 100], "its two neighbours, and itself"
