"""The page about a study, whatever the study lacks; its figures; what a notebook gets of it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from study_samples import COST, Driver, make_candidate, make_measurement, read, row

import studies.pages.figures
import studies.reading.history
from benchmarks.report_page import LIMIT_MB, grown
from nas.errors import ConfigError
from nas.outcome import Outcome
from nas.search.confirmation import Confirmed, ConfirmedRun, Interval, summarize
from nas.search.importance import FEWEST
from nas.search.objectives import METRICS
from nas.training.version import TRAINING_VERSION
from nas.types import Cost, Objective, ProbeCurve, Task
from search_spaces.unet.references import REFERENCES, reference_network
from search_spaces.unet.spec import UNetSpec
from studies.notebook import Study
from studies.pages.curves import confirmed_gates, stability_curve
from studies.pages.diagram import network_svg
from studies.pages.figures import all_plots
from studies.pages.fronts import by_size, front_pair
from studies.pages.hyperparameters import importance
from studies.pages.report import render, write_figures, write_report
from studies.pages.samples import Samples
from studies.reading.history import hypervolume_steps, lanes, read_history
from studies.reading.rows import to_csv
from studies.store.ledger import SqlLedger

New = Callable[..., SqlLedger]
PSNR = Objective(name="psnr", direction="maximize", unit="dB", reference=14.0)
ACCURACY = Objective(name="accuracy", direction="maximize", unit="%", reference=10.0)
STABILITY = Objective(name="stability", direction="maximize", unit="", reference=0.0)


def train(ledger: SqlLedger, psnr: float, accuracy: float = 50.0, stability: float = 0.5) -> int:
    number = Driver(ledger).start()
    ledger.epochs(number, [row(1), row(3, psnr=psnr)])
    ledger.complete(number, make_measurement(psnr, accuracy=accuracy, stability=stability))
    return number


def page_of(ledger: SqlLedger, **confirmed: Any) -> str:
    return render(read(ledger), read_history(read(ledger)), Samples(lacks="no images in this test"), **confirmed)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    value: dict[str, Any] = json.loads(found[1])
    return value


def drawn(page: str) -> set[str]:
    return set(data_of(page)["plots"])


@pytest.fixture
def three(new_study: New) -> SqlLedger:
    return new_study(objectives=(PSNR, ACCURACY, STABILITY))


def test_an_empty_study_says_that_it_is(three: SqlLedger) -> None:
    page = page_of(three)
    assert "No trial has been made yet" in page
    assert drawn(page) == set()


def test_one_trial_is_its_own_front(three: SqlLedger) -> None:
    train(three, 20.0)
    page = page_of(three)
    assert "trial 0 is the only member of the front" in page.lower()
    assert {"front", "front-psnr-accuracy", "hypervolume-trials", "parallel", "loss", "workers"} <= drawn(page)
    assert f"Nothing can be said yet: it takes at least {FEWEST} complete trials, and there are 1." in page


def test_three_trials_of_which_one_is_dominated(three: SqlLedger) -> None:
    for psnr, accuracy in ((20.0, 50.0), (18.0, 90.0), (17.0, 40.0)):
        train(three, psnr, accuracy)
    history = read_history(read(three))
    assert [t.group for t in history.trials] == ["front", "front", "complete"]
    assert "on the front" in page_of(three)


def test_only_failed_trials(three: SqlLedger) -> None:
    number = Driver(three).start()
    three.fail(number, Outcome.EXCEPTION, detail="Traceback\nValueError: <b>no</b> & such")
    page = page_of(three)
    assert "No trial is complete" in page
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; &amp; such" in page, "what a trial said is text, not markup"
    assert "<b>no</b>" not in page
    assert drawn(page) == {"size", "workers"}


def test_a_missing_objective_is_named(new_study: New) -> None:
    ledger = new_study(objectives=(PSNR, STABILITY))
    train(ledger, 20.0)
    page = page_of(ledger)
    assert "Not among the objectives: accuracy" in page
    assert "the figure needs three" in page
    assert "front-psnr-stability" in drawn(page)


def test_outcomes_are_told_apart(three: SqlLedger) -> None:
    train(three, 20.0)
    driver = Driver(three)
    pruned = driver.start()
    three.epochs(pruned, [row(1, psnr=15.0, accuracy=30.0, stability=0.2)])
    three.prune(pruned, Outcome.STOPPED, detail="not among the best at epoch 1")
    number = driver.ask()
    three.reject(number, make_candidate(1000), COST, Outcome.DUPLICATE)
    driver.reject(5, Outcome.OVER_LIMIT)
    history = read_history(read(three))
    assert [t.group for t in history.trials] == ["front", "pruned", "duplicate", "over_limit"]
    figure = front_pair(history, PSNR, ACCURACY)
    assert figure is not None
    traces = {trace.name.partition(":")[0]: trace for trace in figure.data}
    assert set(traces) == {"Pareto front", "pruned (last measured)", "duplicate (of the trial here)", "knee"}
    assert list(traces["pruned (last measured)"].x) == [15.0]
    assert list(traces["duplicate (of the trial here)"].x) == [20.0], "a duplicate lies on its original"
    shapes = {trace.marker.symbol for name, trace in traces.items() if name != "knee"}
    assert len(shapes) == 3, "shapes tell what colours tell"
    assert "over a limit and never trained (1)" in page_of(three)


def test_the_best_at_each_size_is_drawn_of_found_networks_and_of_references(three: SqlLedger) -> None:
    def trial(macs: int, psnr: float, reference: str = "") -> int:
        if reference:
            three.optuna_study.enqueue_trial({}, user_attrs={"baseline": reference})
        number = Driver(three).ask()
        assert three.start(number, make_candidate(1000 + number), Cost(params=macs, macs=macs), "w")
        three.complete(number, make_measurement(psnr, stability=0.5, macs=macs))
        return number

    unet, small, worse, large = trial(4000, 20.0, "unet"), trial(1000, 18.0), trial(2000, 17.0), trial(4000, 21.0)
    figure = by_size(read_history(read(three)), METRICS["psnr"])
    assert figure is not None
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {
        "found networks: 3",
        "best of the found networks",
        "networks of the papers: 1",
        "best of the networks of the papers",
    }
    assert list(traces["found networks: 3"].customdata) == [small, worse, large]
    assert list(traces["networks of the papers: 1"].customdata) == [unet]
    best = traces["best of the found networks"]
    assert (list(best.x), list(best.y)) == ([1000, 4000, 4000], [18.0, 21.0, 21.0]), "the one between is no better"
    assert list(best.text) == ["", "", f"trial {large}"], "the best is named at the line's end"
    assert list(figure.layout.yaxis.range) == pytest.approx([17.7, 21.3]), (
        "from the best of the smallest, not the worst"
    )
    assert list(traces["best of the networks of the papers"].text) == ["", "unet"]
    assert traces["best of the networks of the papers"].line.dash == "dash"
    page = page_of(three)
    assert {"by-size-psnr", "by-size-accuracy"} <= drawn(page)
    row = f'<td>found</td><td>18.00 <a href="#trial-{small}">trial {small}</a></td>'
    assert f'<td class="n">1,000</td>{row}' in page
    assert f'<td>network of a paper</td><td>20.00 <a href="#trial-{unet}">trial {unet}</a> (unet)</td>' in page


def test_importances_point_to_what_makes_values_good(three: SqlLedger) -> None:
    for _ in range(40):
        number = Driver(three).ask()
        depth = three.optuna_study.trials[number].params["depth"]
        assert three.start(number, make_candidate(1000 + number), COST, "w")
        # Only the best trials share a depth; among the bad ones it says nothing.
        psnr = 25.0 if depth == 5 else 15.0 + number % 7
        three.complete(number, make_measurement(psnr, accuracy=50.0 + number % 3, stability=0.5))
    history = read_history(read(three))
    found = history.importances["psnr"]
    assert next(iter(found)) == "depth"
    assert [name for name, each in found.items() if each.stands_out] == ["depth"]
    figure = importance(history, PSNR)
    assert figure is not None
    bars, noise = figure.data
    assert bars.y[0] == "depth"
    assert bars.x[0] > noise.x[0]
    assert bars.error_x.array is not None
    assert not any(each.stands_out for each in history.importances["accuracy"].values())
    assert importance(history, ACCURACY) is None
    assert "Nothing can be said yet: in 40 complete trials no hyperparameter stands out" in page_of(three)


def test_importances_of_few_trials_are_not_guessed(three: SqlLedger) -> None:
    for psnr in range(7):
        train(three, 15.0 + psnr)
    assert "Nothing can be said yet: it takes at least 8 complete trials, and there are 7." in page_of(three)


def test_the_hypervolume_never_falls_and_counts_what_was_spent(three: SqlLedger) -> None:
    for psnr in (15.0, 20.0, 18.0):
        train(three, psnr)
    steps = hypervolume_steps(read_history(read(three)))
    volumes = [step["hypervolume"] for step in steps]
    assert volumes == pytest.approx([1 * 40 * 0.5, 6 * 40 * 0.5, 6 * 40 * 0.5])
    assert [step["epochs"] for step in steps] == [3, 6, 9]
    assert [step["trials"] for step in steps] == [1, 2, 3]


def test_workers_are_as_many_rows_as_were_busy_at_once(three: SqlLedger) -> None:
    train(three, 20.0)
    history = read_history(read(three))
    times = [(0.0, 10.0), (1.0, 4.0), (4.0, 9.0), (11.0, 12.0)]
    trials = tuple(
        dataclasses.replace(history.trials[0], number=n, started=a, ended=b) for n, (a, b) in enumerate(times)
    )
    assert [lane for _, lane in lanes(dataclasses.replace(history, trials=trials))] == [0, 1, 1, 0]


def test_spikes_are_marked_where_they_are(three: SqlLedger) -> None:
    number = train(three, 20.0)
    loss = np.exp(-np.linspace(0, 2, 100))
    loss[40] *= 5
    history = dataclasses.replace(
        read_history(read(three)),
        probes={number: ProbeCurve(steps=tuple(range(100)), denoise=tuple(loss.tolist()))},
    )
    figure = stability_curve(history, number)
    assert figure is not None
    marked = [trace for trace in figure.data if trace.mode == "markers"]
    assert [list(trace.x) for trace in marked] == [[40]]
    (wide,) = [trace for trace in figure.data if trace.line.width == 4]
    assert list(wide.y[:41]) == pytest.approx([max(each, loss[40]) if loss[40] < 1 else 1.0 for each in loss[:41]])
    assert list(wide.y[41:]) == pytest.approx(loss[41:].tolist())


def test_thousands_of_trials_stay_small(three: SqlLedger) -> None:
    for psnr, accuracy in ((20.0, 50.0), (18.0, 90.0), (17.0, 40.0)):
        train(three, psnr, accuracy)
    history = grown(read_history(read(three)), 3000)
    page = render(read(three), history, Samples())
    assert len(page.encode()) / 1e6 < LIMIT_MB
    traces = data_of(page)["plots"]["front-psnr-accuracy"]["data"]
    assert {trace["type"] for trace in traces[:1]} == {"scattergl"}
    assert len(data_of(page)["trials"]) == 3000


def test_a_study_is_read_in_the_same_number_of_queries_whatever_its_front(three: SqlLedger) -> None:
    queries: list[str] = []
    event.listen(three.storage.engine, "before_cursor_execute", lambda *given: queries.append(given[2]))
    counts, fronts = [], []
    for _ in range(2):
        for _ in range(3):
            train(three, 20.0 + len(read(three).results()), 90.0 - len(read(three).results()))
        queries.clear()
        history = read_history(read(three))
        counts.append(len(queries))
        fronts.append(len(history.front))
        assert set(history.probes) == {t.number for t in history.front}
        assert all(read(three).probe(number) == curve for number, curve in history.probes.items())
    assert fronts == [3, 6]
    assert counts[0] == counts[1]


def test_what_many_figures_show_is_computed_once(three: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (calls.update([name]), function(*given))[1])

    for psnr, accuracy in ((20.0, 50.0), (18.0, 90.0), (17.0, 40.0)):
        train(three, psnr, accuracy)
    counted(studies.reading.history, "describe_trial")
    counted(studies.pages.figures, "hypervolume_steps")
    assert "<b>trial 2</b> · complete" in data_of(page_of(three))["trials"]["2"]["hover"]
    assert calls == {"describe_trial": 3, "hypervolume_steps": 1}


def test_the_page_is_whole_and_asks_nothing_of_others(three: SqlLedger) -> None:
    train(three, 20.0)
    page = page_of(three)
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:)', page)
    assert "default-src 'none'" in page
    for anchor in re.findall(r'href="#([a-z-]+)"', page):
        assert f'id="{anchor}"' in page


def test_confirmed_numbers_are_shown(three: SqlLedger) -> None:
    def again(number: int | None, reference: str | None, **values: Interval) -> Confirmed:
        return Confirmed(
            digest=str(number), number=number, reference=reference, spec={}, recipe={}, runs=5, failed=0, values=values
        )

    number = train(three, 20.0)
    psnr = Interval(mean=19.5, sd=0.3, low=19.1, high=19.9, n=5)
    rows = [again(number, None, psnr=psnr, accuracy=psnr, stability=psnr), again(None, "addunet")]
    assert "skipnas confirm first" in page_of(three)
    page = page_of(three, confirmed=rows)
    assert "skipnas confirm first" not in page
    assert '<td class="n">19.50 ± 0.40</td>' in page
    assert "<td>addunet</td>" in page


def test_gates_of_denoising_alone_stand_beside_those_of_the_joint_task(three: SqlLedger) -> None:
    def gated(reference: str, tasks: str, *means: float) -> Confirmed:
        gates = tuple(Interval(mean=mean, sd=0.1, low=mean - 0.2, high=mean + 0.2, n=3) for mean in means)
        return Confirmed(
            digest=reference,
            number=None,
            reference=reference,
            spec={"tasks": tasks},
            recipe={},
            runs=3,
            failed=0,
            values={},
            gates=gates,
        )

    train(three, 20.0)
    assert "No network with learned gates was confirmed" in page_of(three)
    rows = [gated("addunet", "joint", 1.2, 0.8), gated("addunet-denoise", "denoise", 1.0, 0.9)]
    figure = confirmed_gates(rows)
    assert figure is not None
    joint, alone = figure.data
    assert (joint.name, alone.name) == ("addunet", "addunet-denoise, denoising alone")
    assert list(joint.y) == [1.2, 0.8]
    assert list(alone.error_y.array) == pytest.approx([0.2, 0.2])
    page = page_of(three, confirmed=rows)
    assert "No network with learned gates was confirmed" not in page
    assert 'id="gates-confirmed"' in page


def test_the_answer_of_a_confirmed_study_is_the_confirmed_knee(three: SqlLedger) -> None:
    def again(digest: str, number: int | None, psnr: float, accuracy: float, stability: float) -> None:
        for repeat in range(2):
            values = {"psnr": psnr + repeat, "accuracy": accuracy, "stability": stability, "params": 1e6}
            three.confirm(
                ConfirmedRun(
                    digest=digest,
                    repeat=repeat,
                    seed=repeat,
                    number=number,
                    reference=None if number is not None else "addunet",
                    spec={},
                    recipe={},
                    outcome=Outcome.COMPLETE,
                    training_version=TRAINING_VERSION,
                    values=values | {"test_psnr": psnr - 1 + repeat, "test_accuracy": accuracy},
                )
            )

    lucky, plain, good = (train(three, *v) for v in ((24.0, 90.0, 0.9), (26.0, 40.0, 0.4), (20.0, 95.0, 0.5)))
    before = read_history(read(three))
    assert before.knee == lucky
    again(before.trials[lucky].digest or "", lucky, 15.0, 30.0, 0.1)
    again(before.trials[plain].digest or "", plain, 25.5, 41.0, 0.4)
    again("reference", None, 23.5, 70.0, 0.6)
    history = read_history(read(three))
    assert history.knee == plain
    assert [t.number for t in history.front] == [lucky, plain, good], "figures show the front that the search saw"
    assert history.hypervolume == before.hypervolume
    page = page_of(three, confirmed=summarize(three.confirmations()))
    assert f"Trial {plain} is the only member of the front by means under 2 seeds: 26.00 dB, 41.00 %, " in page
    assert "<b>26.00 dB</b><span>± 6.35 psnr, 2 seeds</span>" in page
    assert "<b>25.00 dB</b><span>± 6.35 psnr on test</span>" in page
    rows = re.findall(r"<tr[^>]*><td>(?:<a[^>]*>)?(trial \d|addunet)(?:</a>)?([^<]*)</td>", page)
    assert rows[:3] == [(f"trial {plain}", " ← knee"), ("addunet", ""), (f"trial {lucky}", "")], "best psnr first"
    assert rows[3:] == [(f"trial {plain}", " ← knee"), (f"trial {lucky}", ""), (f"trial {good}", "")]
    assert page.count('class="chosen"') == 2
    assert "were not trained under the same seeds" not in page


def test_the_page_names_no_folders_and_the_reference_point_of_its_objectives(new_study: New) -> None:
    params = Objective(name="params", direction="minimize", unit="", reference=2e6)
    latency = Objective(name="latency", direction="minimize", unit="ms", reference=1000.0)
    ledger = new_study(data="images:/home/someone/photographs", objectives=(PSNR, params, latency))
    number = Driver(ledger).start()
    ledger.complete(number, make_measurement(20.0, params=1e6))
    page = page_of(ledger)
    assert "/home/someone" not in page
    assert "&quot;data&quot;: &quot;images:photographs&quot;" in page
    told = "the noisy input's PSNR, the limit of parameters and a latency of 1000.000"
    assert f"The reference point is {told}.</p>" in page


def test_a_notebook_gets_every_figure_of_the_report(three: SqlLedger) -> None:
    number = train(three, 20.0)
    for repeat in range(2):
        three.confirm(
            ConfirmedRun(
                digest=read(three).trial(number).digest or "",
                repeat=repeat,
                seed=repeat,
                number=number,
                reference=None,
                spec={},
                recipe={},
                outcome=Outcome.COMPLETE,
                training_version=TRAINING_VERSION,
                values={"psnr": 20.0, "accuracy": 50.0, "stability": 0.5},
                gates=({"mean": 1.0},),
            )
        )
    page = page_of(three, confirmed=summarize(three.confirmations()))
    assert "gates-confirmed" in drawn(page)
    assert set(Study(read(three)).figures()) == drawn(page)


def test_a_report_is_written_whole_or_not_at_all(three: SqlLedger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        write_report(read(three), tmp_path / "no" / "page.html")
    size = write_report(read(three), tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size
    assert [path.name for path in tmp_path.glob("*page*")] == ["page.html"]


def test_what_is_written_may_be_read_by_whom_the_umask_lets(three: SqlLedger, tmp_path: Path) -> None:
    train(three, 20.0)
    for mask, mode in ((0o077, 0o600), (0o022, 0o644)):
        before = os.umask(mask)
        try:
            for name, write in ((f"page{mask}.html", write_report), (f"trials{mask}.csv", to_csv)):
                write(read(three), tmp_path / name)
        finally:
            os.umask(before)
        for name in (f"page{mask}.html", f"trials{mask}.csv"):
            assert (tmp_path / name).stat().st_mode & 0o777 == mode, name


def test_figures_that_cannot_be_written_are_told(
    three: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaleido, errors = ModuleType("kaleido"), ModuleType("choreographer.errors")
    for name in ("BrowserClosedError", "BrowserFailedError", "ChromeNotFoundError"):
        setattr(errors, name, type(name, (Exception,), {}))

    def full(figures: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kaleido.write_fig_from_object_sync = full  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kaleido", kaleido)
    monkeypatch.setitem(sys.modules, "choreographer.errors", errors)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        write_figures(read(three), tmp_path / "figures", "svg")
    assert not list(tmp_path.glob("*figures*")), "nothing half written"


def test_figures_name_what_they_need(three: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="choose one of svg, pdf, png"):
        write_figures(read(three), tmp_path / "figures", "gif")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(ConfigError, match=r"pip install 'skipnas\[figures\]'"):
        write_figures(read(three), tmp_path / "figures", "svg")


@pytest.mark.slow  # .ci/run has kaleido by then
def test_figures_without_a_browser_say_so(three: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaleido = pytest.importorskip("kaleido")
    errors = pytest.importorskip("choreographer.errors")

    def no_browser(figures: Any) -> None:
        raise errors.ChromeNotFoundError

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", no_browser)
    with pytest.raises(ConfigError, match="needs Chrome or Chromium"):
        write_figures(read(three), tmp_path / "figures", "svg")
    assert not list(tmp_path.glob("*figures*")), "nothing half written"


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_network_is_drawn(name: str) -> None:
    candidate = reference_network(name, Task(channels=1, classes=10, height=32, width=32, noise="gaussian:25"))
    spec = candidate.spec
    assert isinstance(spec, UNetSpec)
    svg = network_svg(spec, [{"mean": 0.5}] * spec.depth)
    assert svg.count("<rect") >= spec.levels + spec.depth
    assert ('class="skip"' in svg) == (spec.fusion != "none" and spec.depth > 0)
    assert svg.count('class="gate"') == (spec.depth if spec.gate != "none" and spec.fusion != "dense" else 0)
    assert ("classification head" in svg) == (spec.tasks != "denoise")


def test_data_frames(three: SqlLedger) -> None:
    for psnr, accuracy in ((20.0, 50.0), (18.0, 90.0), (17.0, 40.0)):
        train(three, psnr, accuracy)
    history = read_history(read(three))
    trials = history.trials_frame()
    assert list(trials["psnr"]) == [20.0, 18.0, 17.0]
    assert {"outcome", "depth", "fusion", "params", "seconds"} <= set(trials.columns)
    assert list(history.front_frame().index) == [0, 1]
    assert list(history.front_frame()["knee"]).count(True) == 1
    epochs = history.epochs_frame()
    assert len(epochs) == 6
    assert epochs.groupby("number")["psnr"].last().tolist() == [20.0, 18.0, 17.0]
    assert all(plot.figure is not None or plot.lacks for plot in all_plots(history))


def test_a_network_of_the_papers_is_called_by_its_name(three: SqlLedger) -> None:
    attributes = {"baseline": "unet++"}
    three.optuna_study.enqueue_trial({"depth": 4, "fusion": "add", "learning_rate": 1e-3}, user_attrs=attributes)
    number = Driver(three).ask()
    assert three.start(number, make_candidate(77), COST, "")
    three.complete(number, make_measurement(99.0, accuracy=99.0, stability=0.99))
    page = page_of(three)
    assert f'<a href="#trial-{number}">trial {number}</a> (unet++) ← knee' in page
    assert page.count("</a> (") == 3, "on the front, and as the best of its size in two metrics"
    assert f"<b>trial {number}</b> · front · unet++<br>" in read_history(read(three)).hover[number]
