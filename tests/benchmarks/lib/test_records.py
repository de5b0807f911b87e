"""The file of finished records: a line that was cut short costs only itself."""

from __future__ import annotations

from pathlib import Path

from benchmarks.lib.records import append, measured, note_session, read, sessions


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    assert read(path) == {}
    note_session(path, {"date": "today"})
    append(path, {"key": "a", "psnr": 20.0})
    append(path, {"key": "b", "psnr": 21.0})
    assert read(path) == {"a": {"key": "a", "psnr": 20.0}, "b": {"key": "b", "psnr": 21.0}}
    assert sessions(path) == [{"date": "today"}]


def test_a_line_that_was_cut_short_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, {"key": "a"})
    with path.open("a") as file:
        file.write('{"key":"b","psn')
    assert set(read(path)) == {"a"}
    append(path, {"key": "c"})
    assert set(read(path)) == {"a", "c"}


def test_what_is_finished_is_not_measured_again(tmp_path: Path) -> None:
    asked = [{"side": 8}, {"side": 28}]
    file = tmp_path / "speed.jsonl"
    first = measured(asked[:1], file, lambda what: {"found": what["side"]})
    both = measured(asked, file, lambda what: {"found": -what["side"]})
    assert both[0] == first[0]
    assert [record["found"] for record in both] == [8, -28]
