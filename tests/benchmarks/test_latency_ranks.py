"""The experiment on latency: what its tables are made of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import latency
from nas.types import TrialResult
from search_spaces.unet.references import reference_network


def test_each_kind_is_measured_in_an_order_of_its_own() -> None:
    asked = latency.asked_for("random", 5, 64)
    orders = {kind: [each["number"] for each in asked if each["kind"] == kind] for kind in latency.KINDS}
    assert orders["search"] == orders["shipped"][::-1] == [0, 1, 2, 3, 4]
    assert sorted(orders["eager"]) == orders["search"] != orders["eager"]
    assert [each["kind"] for each in asked] == [kind for kind in latency.KINDS for _ in range(5)]


def test_columns_are_in_the_order_of_the_candidates() -> None:
    found = [{**each, "latency": 10.0 * each["number"]} for each in latency.asked_for("random", 4, 64)]
    for column in latency.columns(found).values():
        assert column.tolist() == [0.0, 10.0, 20.0, 30.0]


def test_what_the_front_of_the_old_latency_costs() -> None:
    """At 20 dB the old one picks the first, which runs for 6 ms, and the new one the second, which runs for 2 ms; at 25
    dB both pick the third."""
    psnr, accuracy = np.array([20.0, 21.0, 25.0, 19.0]), np.array([90.0, 90.0, 90.0, 80.0])
    of = {
        "eager": np.array([1.0, 2.0, 3.0, 4.0]),
        "search": np.array([5.0, 2.0, 9.0, 9.0]),
        "shipped": np.array([6.0, 2.0, 8.0, 9.0]),
    }
    assert latency.ratios(psnr, accuracy, of) == pytest.approx([3.0, 1.0, 1.0])


def test_fronts_of_two_studies_are_compared_where_both_reach(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new study has its second network at 19 and 20 dB, which runs for 2 ms, and its first at 21 dB, 4 ms. The old
    one has its first at 19 dB, 8 ms, and its second from 20 dB on, 6 ms. Only the new one reaches 22 dB."""
    spec = reference_network("unet", latency.TASK).spec.to_dict()

    def member(number: int, psnr: float, measured: float) -> TrialResult:
        values = {"psnr": psnr, "latency": measured}
        return TrialResult(number=number, digest="", spec=spec, recipe={}, values=values)

    fronts = {
        "new": [member(1, 22.0, 3.0), member(2, 20.0, 1.0)],
        "old": [member(3, 19.0, 1.0), member(4, 21.0, 5.0)],
    }
    times = iter([8.0, 2.0, 6.0, 4.0])  # of the programs in the order in which they are first picked
    monkeypatch.setattr(latency.StudyReader, "open", lambda name, url: name)
    monkeypatch.setattr(latency, "choose", lambda study, confirmed: SimpleNamespace(front=fronts[study]))
    monkeypatch.setattr(latency, "_shipped", lambda spec: b"")
    monkeypatch.setattr(latency, "run_times", lambda *given, **named: [next(times)])
    assert latency.fronts_compared("new@a", "old@b", 64) == pytest.approx([4.0, 3.0, 1.5])
    assert capsys.readouterr().out.splitlines()[0].startswith("| 19.00 | 8.0 | 2.0 | 4.00 |")
