"""Latency as a study measures it: of the exported program, at the stated size, in ONNX Runtime or by a command."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn
from toy_space import ToySpace, ToySpec

from nas.bundles import latency
from nas.bundles.latency import Meter, metrics, program, run_times, timed
from nas.errors import LatencyError
from nas.types import LatencySetting, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
SPACE, SPEC = ToySpace(), ToySpec(width=4)
HERE = LatencySetting(height=12, width=20, batch=2, threads=1, provider="cpu")


def build() -> nn.Module:
    return SPACE.build(SPEC, TASK)


@pytest.fixture(scope="module")
def model() -> bytes:
    return program(build, TASK, HERE)


@pytest.fixture
def by(tmp_path: Path) -> Callable[[str], LatencySetting]:
    """Makes a command of a Python program: its text -> setting. The model's file is its first argument."""

    def command(text: str) -> LatencySetting:
        script = tmp_path / "measure.py"
        script.write_text(
            f"import sys\nfrom pathlib import Path\nhere = Path({str(tmp_path)!r})\n{textwrap.dedent(text)}"
        )
        return LatencySetting(height=12, width=20, command=shlex.join([sys.executable, str(script), "{model}"]))

    return command


def measured(setting: LatencySetting, model: bytes, folder: Path) -> list[float]:
    return timed(model, setting, folder / "it.onnx")


def test_the_program_that_is_measured_has_the_stated_size_and_batch(model: bytes) -> None:
    graph = onnx.load_model_from_string(model).graph
    shapes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (graph.input[0], graph.output[0])
    ]
    assert shapes == [[2, 1, 12, 20], [2, 1, 12, 20]]


def test_a_run_is_the_least_of_its_block_and_takes_a_bounded_time(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Session:
        def get_inputs(self) -> list[Any]:
            return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()

        def run(self, names: None, images: dict[str, Any]) -> None:
            calls.append(images["noisy"].shape)

    monkeypatch.setattr(latency, "_session", lambda model, setting: Session())
    # A block begins, and a run is from one reading of the clock to the next: 0.05, 0.02 and 0.04 s.
    block = (0.0, 0.0, 0.05, 0.06, 0.06, 0.08, 0.09, 0.09, 0.13, 0.14)
    times = iter([0.0, *block, *(value for k in range(1, 5) for value in (k, *(k + each for each in block)))])
    assert run_times(model, HERE, lambda: next(times)) == pytest.approx([20.0] * 5)
    assert calls == [(2, 1, 12, 20)] * (latency.WARM_UP + 5 * 3)
    slow = iter(range(0, 1000, 6))  # each reading six seconds later, as of a network that takes minutes
    assert run_times(model, HERE, lambda: next(slow)) == [6000.0]


def test_one_thread_on_the_cpu_has_a_clock_of_its_own(model: bytes) -> None:
    """Other work of the machine, such as trainings, would otherwise count as latency."""
    session = latency._session(model, HERE)
    images = {"noisy": np.zeros((2, 1, 12, 20), np.float32)}
    before = time.thread_time(), time.process_time()
    for _ in range(300):
        session.run(None, images)
    thread, process = time.thread_time() - before[0], time.process_time() - before[1]
    assert latency.clock_for(HERE) is time.thread_time
    assert thread > 0.5 * process, "no other thread does the work"
    for other in ({"threads": 2}, {"provider": "cuda"}):
        assert latency.clock_for(dataclasses.replace(HERE, **other)) is time.perf_counter


def test_it_is_the_time_for_an_image_of_a_batch(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "run_times", lambda model, setting: [4.0, 8.0, 5.0])
    assert metrics(measured(HERE, model, tmp_path)) == {"latency": 2.5, "latency_spread": 2.0}


def test_the_runtime_measures_something(model: bytes, tmp_path: Path) -> None:
    assert all(0 < run < 1000 for run in measured(HERE, model, tmp_path))


def test_an_unknown_provider_is_named_with_those_that_there_are(model: bytes, tmp_path: Path) -> None:
    setting = LatencySetting(height=12, width=20, threads=1, provider="npu")
    with pytest.raises(LatencyError, match=r"has no provider 'npu' here; it has .*cpu"):
        measured(setting, model, tmp_path)


def test_a_command_gets_the_program_and_its_last_number_is_the_time(
    model: bytes, tmp_path: Path, by: Callable[[str], LatencySetting]
) -> None:
    setting = by(
        """
        given = Path(sys.argv[1]).read_bytes()
        (here / "given").write_bytes(given)
        print("run 1 of model2: 7 ms")
        print("latency: 12.5 ms (v2 board)")
        """
    )
    found = metrics(measured(setting, model, tmp_path))
    assert found == {"latency": 12.5, "latency_spread": 0.0}
    assert (tmp_path / "given").read_bytes() == model
    assert not (tmp_path / "it.onnx").exists()


@pytest.mark.parametrize("told", ["sys.argv[1]", "Path(sys.argv[1]).name", "'./' + Path(sys.argv[1]).name + ':'"])
def test_the_digits_of_the_programs_own_name_are_no_time(
    model: bytes, tmp_path: Path, by: Callable[[str], LatencySetting], told: str
) -> None:
    """Many programs end with the name of the file that they have run, and that of a study's file is a digest."""
    file = tmp_path / "2026 11" / "latency-903afdd359133501.onnx"
    file.parent.mkdir()
    assert timed(model, by(f"print('12.5 ms of', {told})"), file, runs=1) == [12.5]
    setting = by(f"print('done:', {told})")
    with pytest.raises(LatencyError) as error:
        timed(model, setting, file, runs=1)
    assert str(error.value) == f"{setting.command!r} printed no number (done:), 3 times in a row"


def test_a_noisy_command_has_its_median_and_its_spread(
    model: bytes, tmp_path: Path, by: Callable[[str], LatencySetting]
) -> None:
    setting = by(
        """
        done = here / "runs"
        done.open("a").write("x")
        print({1: "5.0", 2: "9.5e0", 3: "6"}[len(done.read_text())])
        """
    )
    assert metrics(measured(setting, model, tmp_path)) == {"latency": 6.0, "latency_spread": 4.5}


def test_a_run_that_fails_is_tried_again(model: bytes, tmp_path: Path, by: Callable[[str], LatencySetting]) -> None:
    setting = by(
        """
        done = here / "runs"
        done.open("a").write("x")
        if len(done.read_text()) in (1, 2, 4):
            sys.exit("the board is busy")
        print(3)
        """
    )
    assert measured(setting, model, tmp_path) == [3.0, 3.0, 3.0]
    assert len((tmp_path / "runs").read_text()) == 6


@pytest.mark.parametrize(
    ("error", "raised"), [(MemoryError("no room"), MemoryError), (ValueError("an operator is missing"), LatencyError)]
)
def test_memory_that_runs_out_is_no_program_that_cannot_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def fails(model: bytes, setting: LatencySetting) -> Any:
        raise error

    monkeypatch.setattr(latency, "_session", fails)
    with pytest.raises(raised, match=str(error)):
        run_times(b"", HERE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sys.exit('no route to host')", "ended with code 1 (no route to host), 3 times in a row"),
        ("print('done')", "printed no number (done), 3 times in a row"),
        ("", "printed no number (nothing at all), 3 times in a row"),
        ("print(-3)", "printed -3 as its last number, which are no milliseconds, 3 times in a row"),
        (
            "print('took 3,5 ms')",
            "printed 3,5 as its last number; let it print a plain one, such as 3.5, 3 times in a row",
        ),
        (
            "print('1,234.5')",
            "printed 1,234.5 as its last number; let it print a plain one, such as 3.5, 3 times in a row",
        ),
        ("print('1e999')", "printed 1e999 as its last number, which are no milliseconds, 3 times in a row"),
        ("import time; time.sleep(60)", "took more than 0.5 s, 3 times in a row"),
    ],
)
def test_a_command_that_gives_no_time_is_told_with_its_reason(
    model: bytes,
    tmp_path: Path,
    by: Callable[[str], LatencySetting],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    told: str,
) -> None:
    if "sleep" in text:
        monkeypatch.setattr(latency, "RUN_SECONDS", 0.5)
    setting = by(text)
    with pytest.raises(LatencyError) as error:
        measured(setting, model, tmp_path)
    assert str(error.value) == f"{setting.command!r} {told}"
    assert not (tmp_path / "it.onnx").exists()


def test_what_a_command_leaves_running_ends_with_it(
    model: bytes, tmp_path: Path, by: Callable[[str], LatencySetting]
) -> None:
    """Otherwise a search would leave hundreds of processes, and would wait for the output of each."""
    setting = by(
        """
        import subprocess
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (here / "left").write_text(str(left.pid))
        print(1)
        """
    )
    assert timed(model, setting, tmp_path / "it.onnx", runs=1) == [1.0]
    state = Path("/proc", (tmp_path / "left").read_text(), "stat")
    for _ in range(100):  # a process that was killed may still have to get its turn to die
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


def test_a_command_runs_in_the_folder_of_the_search(tmp_path: Path) -> None:
    """Workers of Ray have another one, in which a script that was named without its folder is not there."""
    (tmp_path / "here.py").write_text("print(4)")
    setting = LatencySetting(height=12, width=20, command=shlex.join([sys.executable, "here.py", "{model}"]))
    meter = Meter(setting=setting, folder=tmp_path / "files", working=tmp_path)
    assert meter.measure(SPEC, TASK, build) == {"latency": 4.0, "latency_spread": 0.0}
    elsewhere = Meter(setting=setting, folder=tmp_path / "others", working=tmp_path / "of another machine")
    with pytest.raises(LatencyError, match="can't open file"):
        elsewhere.measure(SPEC, TASK, build)


def test_no_command_reaches_a_shell(model: bytes, tmp_path: Path) -> None:
    setting = LatencySetting(height=12, width=20, command="nowhere-to-be-found {model} ; echo 5")
    with pytest.raises(LatencyError, match=r"cannot be started \(No such file or directory\)"):
        measured(setting, model, tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LatencySetting]]:
    """The settings of all measurements, each of which takes a millisecond more than the last."""
    made: list[LatencySetting] = []

    def measure(model: bytes, setting: LatencySetting, file: Path, working: Path | None) -> list[float]:
        made.append(setting)
        return [float(len(made)), 1.5 * len(made)]

    monkeypatch.setattr(latency, "timed", measure)
    monkeypatch.setattr(latency, "program", lambda *given: b"")
    return made


def test_networks_of_one_architecture_share_a_measurement_and_settings_do_not(
    tmp_path: Path, runs: list[LatencySetting]
) -> None:
    meter = Meter(setting=HERE, folder=tmp_path)
    first = {"latency": 1.25, "latency_spread": 0.5}
    assert [meter.measure(SPEC, TASK, build) for _ in range(2)] == [first, first]
    assert meter.measure(ToySpec(width=5), TASK, build)["latency"] == 2.5
    other = Meter(setting=LatencySetting(height=13, width=20, threads=1, provider="cpu"), folder=tmp_path)
    assert other.measure(SPEC, TASK, build)["latency"] == 3.75
    assert len(runs) == 3
    assert sorted(json.loads(file.read_text())["latency"] for file in tmp_path.iterdir()) == [1.25, 2.5, 3.75]
    alone = Meter(setting=HERE, folder=tmp_path, shared=False)
    assert alone.measure(SPEC, TASK, build)["latency"] == 5.0
    assert meter.measure(SPEC, TASK, build) == first


@pytest.mark.parametrize("content", ["", "[]", '{"latency": 1}', '{"latency": "x", "latency_spread": 1}'])
def test_a_damaged_measurement_is_made_again(tmp_path: Path, runs: list[LatencySetting], content: str) -> None:
    meter = Meter(setting=HERE, folder=tmp_path)
    meter.measure(SPEC, TASK, build)
    file = next(tmp_path.iterdir())
    file.write_text(content)
    assert meter.measure(SPEC, TASK, build) == {"latency": 2.5, "latency_spread": 1.0}
