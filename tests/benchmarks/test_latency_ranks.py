"""The experiment on latency: what its tables are made of."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import latency


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
