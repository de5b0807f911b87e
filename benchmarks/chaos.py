"""Commands that are killed again and again: ``python -m benchmarks.chaos --kills 200 [--seed 0]``.

A search of real small networks on the digits is followed by the confirmation of its front, a training of its choice and
an export, each a command in a process of its own. One search in three has a Ray of its own, and so have all
confirmations; the other searches run on a cluster of two nodes. At random moments a process is killed with signal 9:
the command with its whole Ray, a worker, a node's raylet, or the control store (GCS) of a Ray of its own. A command
that ended by it is started again, the same each time, until it has done its work. Then everything must be as if nothing
had happened (`Work.violations`). The program prints one line for each command and exits with 1 when a rule is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.lib import ROOT
from nas.bundles.files import SUMS
from nas.errors import SkipnasError
from nas.outcome import Outcome
from nas.training.checkpoint import confirm_dir
from nas.types import EpochRow, from_flat
from studies.bundles import open_bundle
from studies.reading.study import StudyReader
from studies.store.files import files_dir

LOSSES = 2
"""Workers and nodes that are killed in one driver's life at most; more may exhaust `nas.engine.searcher.RETRIES`."""
STARTUP = 240.0
"""Seconds within which a command must have begun its work."""
PATIENCE = 300.0
"""Seconds within which a command that is left alone must end."""
EPOCHS = 27
LONG = 60
"""Epochs of a training."""
SEEDS = 3
"""Seeds of the confirmation of the knee."""
MEMORY = 100 * 2**20
"""The size in bytes of the object store of each node of a cluster."""
PROCESSES = {"node": "raylet/raylet", "store": "gcs_server"}
"""The processes whose loss is the loss of a command's own Ray."""


@dataclass
class Work(ABC):
    """One command in a folder, and everything that was seen of it while it was being killed.

    Attributes:
        folder: the folder of the study, in which the command runs.
        seed: seed of the study.
        address: a cluster; None for a Ray of its own.
        victims: the kinds of process that may be killed, a kind as often as it is to be chosen.
        kills: number of kills by kind of process.
        faults: sentences about anything that went wrong on the way.
    """

    folder: Path
    seed: int
    address: str | None = None
    victims: tuple[str, ...] = ("driver",)
    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'chaos.db'}"

    @property
    def files(self) -> Path:
        """The folder of the study's files."""
        return files_dir(self.url, "chaos")

    @abstractmethod
    def words(self) -> list[str]:
        """Returns the command without its storage, which is the same each time."""

    @abstractmethod
    def done(self) -> object:
        """Returns what is on the disk of the work, which is another value when more of it is done."""

    def note(self) -> None:  # noqa: B027 (nothing of an export is safe before its end)
        """Remembers what is safe at this moment, and must not be done again."""

    def whole(self) -> bool:
        """Tells whether the work is done, so that the command has nothing to do but to end."""
        return False

    @abstractmethod
    def violations(self) -> Iterator[str]:
        """Yields every rule that is broken when the command has ended."""

    def start(self) -> None:
        """Starts the command."""
        command = [sys.executable, str(ROOT / "app_cli.py"), *self.words(), "--storage", self.url]
        if self.address is not None:
            command += ["--address", self.address]
        environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "8"}  # a minute by default
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )

    def ended(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def kill_driver(self) -> None:
        """Kills the driver, its process group, and the processes of its own Ray that are in other groups."""
        assert self.process is not None
        family = [self.process.pid, *descendants(self.process.pid)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:
            kill(pid)
        self.process.wait()

    def has_more(self, before: object) -> bool:
        """Tells whether more is done than `before`, or the command has ended."""
        return self.done() != before or self.ended() is not None

    def has_workers(self, top: int) -> bool:
        """Tells whether a worker descends from the process `top`, or the command has ended."""
        return bool(workers_below(top)) or self.ended() is not None

    def count(self, table: str) -> int:
        """Counts the rows of a table; 0 while there is no table."""
        path = self.folder / "chaos.db"
        if not path.exists():
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            except sqlite3.OperationalError:
                return 0


@dataclass
class Search(Work):
    """A search.

    Attributes:
        trials: size of the study.
        checkpoints: trial number -> rows of the longest checkpoint that was there at a kill.
    """

    trials: int = 8
    checkpoints: dict[int, list[EpochRow]] = field(default_factory=dict)

    def words(self) -> list[str]:
        words = ["search", "--study", "chaos", "--trials", str(self.trials), "--epochs", str(EPOCHS)]
        words += ["--subset", "400", "--seed", str(self.seed), "--max-params", "12000", "--early-stopping"]
        return [*words, "--concurrency", "2", "--cpus-per-trial", "1", "--precision", "fp32", "--quiet"]

    def done(self) -> object:
        return self.count("skipnas_epochs")

    def note(self) -> None:
        """Remembers which epochs are safe in a checkpoint."""
        for path in self.files.glob("trial-*.checkpoint"):
            number = int(path.name.split(".")[0].removeprefix("trial-"))
            try:
                rows = [from_flat(EpochRow, row) for row in torch.load(path, weights_only=True)["state"]["rows"]]
            except FileNotFoundError:  # the trial ended meanwhile
                continue
            if len(rows) > len(self.checkpoints.get(number, [])):
                self.checkpoints[number] = rows

    def violations(self) -> Iterator[str]:
        """Yields every rule that the study of an ended search breaks.

        Exactly N trials are trained, and none is running, failed or lost. Each was asked for and told once. No
        candidate was trained twice, and no epoch that a checkpoint held was trained again. The front is the one that
        the epochs table gives. The folder holds the front's weights, a picture of every complete trial, and nothing
        else.
        """
        with contextlib.closing(sqlite3.connect(self.folder / "chaos.db")) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
            if answer != "ok":
                yield f"the database is damaged: {answer}"
        with StudyReader.open("chaos", self.url) as study:
            counts = study.progress.counts()
            if (counts.trained, counts.running, counts.failed, counts.waiting) != (self.trials, 0, 0, 0):
                yield f"{self.trials} trials were to be trained, and the study has {counts}"
            numbers = [trial.number for trial in study.optuna_study.get_trials(deepcopy=False)]
            events = [(kind, number) for number in numbers for kind in ("ask", "tell")]
            if sorted(study.events()) != sorted(events):
                yield f"of {len(numbers)} trials not each was asked for and told once: {sorted(study.events())}"
            if len(study.trained_digests()) != counts.trained:
                yield f"{counts.trained} trials trained {len(study.trained_digests())} candidates"
            for number, rows in self.checkpoints.items():
                # The wall time of an epoch is never the same twice.
                if study.progress.epochs_table(number)[: len(rows)] != rows:
                    yield f"trial {number} was trained again up to epoch {len(rows)}, though a checkpoint held it"
            yield from _wrong_front(study)
            yield from _wrong_files(study, self.files)


@dataclass
class Confirmation(Work):
    """The confirmation of the knee of the search's front."""

    def words(self) -> list[str]:
        return ["confirm", "chaos", "--top", "0", "--seeds", str(SEEDS), "--concurrency", "2", "--quiet"]

    def done(self) -> object:
        return self.count("skipnas_confirmations"), _newest(confirm_dir(self.files))

    def violations(self) -> Iterator[str]:
        """Yields every rule that a confirmation breaks: one run a seed, the search as it was, nothing left behind."""
        with StudyReader.open("chaos", self.url) as study:
            runs = study.progress.confirmations()
            found = sorted((run.repeat, run.outcome) for run in runs)
            if found != [(repeat, Outcome.COMPLETE) for repeat in range(SEEDS)]:
                yield f"{SEEDS} seeds were to be trained once each, and there are {found}"
            if len({run.digest for run in runs}) != 1:
                yield f"one candidate was to be confirmed, and {len({run.digest for run in runs})} were"
            yield from _wrong_front(study)
            yield from _wrong_files(study, self.files)


@dataclass
class TrainingOfChoice(Work):
    """A training of the search's choice.

    Attributes:
        steps: the steps of the longest checkpoint that was there at a kill, and the losses of its probes.
    """

    steps: tuple[int, list[Any]] = (0, [])

    @property
    def target(self) -> Path:
        return self.folder / "trained"

    def words(self) -> list[str]:
        words = ["train", "chaos", "--epochs", str(LONG), "--subset", "400", "--precision", "fp32", "--quiet"]
        return [*words, "--to", str(self.target)]

    def done(self) -> object:
        return _newest(self.target)

    def note(self) -> None:
        state = self._state()
        if state["step"] > self.steps[0]:
            self.steps = (state["step"], list(state["probes"]))

    def _state(self) -> dict[str, Any]:
        path = self.target / "checkpoint.pt"
        found: dict[str, Any] = (
            torch.load(path, weights_only=True)["state"] if path.exists() else {"step": 0, "probes": []}
        )
        return found

    def violations(self) -> Iterator[str]:
        """Yields every rule that a training breaks.

        It has its epochs, went on from its checkpoints, ended with a bundle that opens, and left nothing else.
        """
        state, (step, probes) = self._state(), self.steps
        if state["step"] < step or list(state["probes"])[: len(probes)] != probes:
            yield f"the training did not go on from the checkpoint of step {step}"
        result = json.loads((self.target / "run.json").read_text()).get("result") or {}
        if result.get("epochs") != LONG:
            yield f"{LONG} epochs were to be trained, and its result is of {result.get('epochs')}"
        left = sorted(path.name for path in self.target.iterdir())
        if left != ["best.pt", "bundle", "checkpoint.pt", "lock", "logs", "run.json"]:
            yield f"the folder of the training holds {', '.join(left)}"
        yield from _wrong_bundle(self.target / "bundle")


@dataclass
class Export(Work):
    """An export of the search's choice."""

    @property
    def target(self) -> Path:
        return self.folder / "exported" / "bundle"

    def words(self) -> list[str]:
        return ["export", "chaos", "--to", str(self.target)]

    def done(self) -> object:
        return sorted(path.name for path in self.target.parent.glob("*/*"))

    def whole(self) -> bool:
        return self.target.exists()

    def violations(self) -> Iterator[str]:
        """Yields every rule that an export breaks: the bundle opens, and nothing else is beside it.

        The hidden folder of a killed export stays for an hour, because it may be another machine's.
        """
        beside = sorted(path.name for path in self.target.parent.glob("[!.]*"))
        if beside != ["bundle"]:
            yield f"the folder of the export holds {', '.join(beside)}"
        yield from _wrong_bundle(self.target)


class Cluster:
    """A Ray cluster on this machine: a head that trains nothing, and two nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        head = {"num_cpus": 0, "object_store_memory": MEMORY}
        self._cluster: Any = RayCluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._added(), self._added()]
        self.address: str = self._cluster.address

    def _added(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=MEMORY)

    def kill_node(self, chance: random.Random) -> None:
        """Kills a node's raylet, and adds another node in its place."""
        index = chance.randrange(2)
        (raylet,) = self._nodes[index].all_processes["raylet"]
        kill(raylet.process.pid)
        self._cluster.remove_node(self._nodes[index], allow_graceful=False)
        self._nodes[index] = self._added()

    def close(self) -> None:
        """Ends every node."""
        self._cluster.shutdown()


def descendants(pid: int) -> list[int]:
    """Returns every process below `pid`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def named(name: str, pids: list[int]) -> list[int]:
    """Returns the processes whose command line contains `name`."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait(until: Callable[[], bool], seconds: float) -> bool:
    """Waits until the condition holds, for so many seconds at most; tells whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def workers_below(process: int) -> list[int]:
    """Returns the search's workers that descend from a process, idle ones and those in a call."""
    below = descendants(process)
    return named("ray::Cand", below) + named("ray::Resource", below)


def _newest(folder: Path) -> int:
    """Returns the time of the newest file below a folder, in ns; 0 where there is none."""
    newest = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime_ns)
    return newest


def torment(work: Work, kills: int, chance: random.Random, cluster: Cluster | None) -> None:
    """Kills a process `kills` times, or until the work is done; then lets the command end."""
    work.start()
    spared = 0  # workers and nodes that were killed since the driver was started
    rays = 0  # those of them that were its whole Ray
    while sum(work.kills.values()) < kills and work.ended() is None:
        before = work.done()
        if chance.random() < 0.8 and not wait(partial(work.has_more, before), STARTUP):
            work.faults.append(f"nothing was done for {STARTUP:g} s")
            break
        time.sleep(chance.uniform(0.0, 1.5))
        if work.ended() is not None:
            break
        victim = "driver" if spared == LOSSES else chance.choice(work.victims)
        work.note()
        assert work.process is not None
        top = os.getpid() if cluster is not None else work.process.pid
        if victim == "worker":
            # A fresh cluster may have no worker for a moment between two trials.
            wait(partial(work.has_workers, top), STARTUP)
            workers = workers_below(top)
            if not workers:
                continue
            kill(chance.choice(workers))
            spared += 1
        elif victim in PROCESSES and cluster is not None:
            cluster.kill_node(chance)
            spared += 1
        elif victim in PROCESSES:
            found = named(PROCESSES[victim], descendants(top))
            if not found:
                continue
            before = work.done()
            kill(found[0])
            # It was the only node. The command starts its Ray again once, and may end at the second loss.
            rays += 1
            if rays == 2:
                if not wait(partial(work.has_more, before), STARTUP):
                    work.faults.append(f"the command hangs {STARTUP:g} s after its Ray was lost twice")
                work.kill_driver()
        else:
            work.kill_driver()
        work.kills[victim] += 1
        if work.ended() is not None:
            if work.whole():
                return
            work.start()
            spared = rays = 0
    if not wait(lambda: work.ended() is not None, PATIENCE):
        work.faults.append(f"it did not end within {PATIENCE:g} s")
        work.kill_driver()
    elif work.ended() != 0:
        work.faults.append(f"it ended with exit code {work.ended()}")


def _wrong_files(study: StudyReader, files: Path) -> Iterator[str]:
    kept = sorted(path.name for path in files.glob("[!.]*"))
    weights = [f"trial-{number}.safetensors" for number in study.progress.kept()]
    if kept != sorted([*weights, *(f"trial-{result.number}.png" for result in study.results())]):
        yield f"weights are kept of {study.progress.kept()}, and on disk are {', '.join(kept)}"


def _wrong_bundle(folder: Path) -> Iterator[str]:
    names = {path.name for path in folder.iterdir()} - {SUMS}
    summed = {line.partition("  ")[2] for line in (folder / SUMS).read_text().splitlines()}
    if names != summed:
        yield f"the bundle holds {', '.join(sorted(names))}, and sums of {', '.join(sorted(summed))}"
    try:
        open_bundle(folder)
    except SkipnasError as error:
        yield f"the bundle cannot be opened: {error}"


def _wrong_front(study: StudyReader) -> Iterator[str]:
    names = [objective.name for objective in study.config.objectives]
    values = {}
    for record in study.trials():
        if record.outcome not in (Outcome.COMPLETE, Outcome.STOPPED, Outcome.DIVERGED):
            continue
        table = study.progress.epochs_table(record.number)
        epochs = [row.epoch for row in table]
        if epochs != list(range(1, len(table) + 1)):
            yield f"trial {record.number} has epochs {epochs}"
        if len(table) == EPOCHS:
            values[record.number] = [table[-1].values[name] for name in names]
    front = [
        n
        for n, own in values.items()
        if not any(all(a >= b for a, b in zip(v, own, strict=True)) and v != own for v in values.values())
    ]
    if front != study.progress.front():
        yield f"the front is {study.progress.front()}, and {front} by the epochs table"
    told = {t.number: t.values for t in study.optuna_study.get_trials(deepcopy=False) if t.values is not None}
    if told != values:
        yield f"Optuna was told {told}, and the epochs table has {values}"


def works(place: Path, seed: int, trials: int, cluster: Cluster | None) -> Iterator[tuple[Work, int]]:
    """Yields the commands of one round, in their order, each with the number of kills that it is meant to have."""
    on_cluster = ("driver", "worker", "worker", "node")
    alone = (*3 * ("driver",), *5 * ("worker",), "node", "store")
    address = None if cluster is None else cluster.address
    yield Search(place, seed, address, alone if cluster is None else on_cluster, trials=trials), 6
    yield Confirmation(place, seed, None, ("driver", "worker", "node", "store")), 4
    yield TrainingOfChoice(place, seed), 3
    yield Export(place, seed), 1


def run(kills: int, seed: int, folder: Path, trials: int) -> tuple[Counter[str], list[str]]:
    """Runs rounds of the four commands until `kills` kills were made.

    Returns:
        the number of kills by command and kind of process, and the rules that were broken.
    """
    killed: Counter[str] = Counter()
    broken: list[str] = []
    for index in itertools.count():
        if sum(killed.values()) >= kills:
            break
        chance = random.Random(1000 * seed + index)
        cluster = None if index % 3 == 0 else Cluster()
        place = folder / f"round-{index}"
        place.mkdir(parents=True)
        try:
            for work, most in works(place, 1000 * seed + index, trials, cluster):
                command = work.words()[0]
                if isinstance(work, Confirmation) and cluster is not None:
                    cluster.close()  # what follows has the cores to itself
                    cluster = None
                began = time.monotonic()
                try:
                    torment(work, min(most, kills - sum(killed.values())), chance, cluster)
                finally:
                    if work.process is not None and work.ended() is None:
                        work.kill_driver()
                wrong = work.faults or list(work.violations())
                broken += [f"round {index}, {command}: {line}" for line in wrong]
                killed += Counter({f"{command}: {kind}": count for kind, count in work.kills.items()})
                kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(work.kills.items()))
                where = "" if work.address is None else " on a cluster"
                took = time.monotonic() - began
                print(f"round {index}, {command}{where}: killed {kinds or 'nothing'}; {took:.0f} s", flush=True)
                for line in wrong:
                    print(f"  broken: {line}", flush=True)
                if work.faults:
                    break  # what follows needs its end
        finally:
            if cluster is not None:
                cluster.close()
    return killed, broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8, help="the size of each study")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder that studies and logs stay in")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the commands that run are ended first
    began = time.monotonic()
    with contextlib.nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as folder:
        killed, broken = run(given.kills, given.seed, Path(folder).resolve(), given.trials)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(killed.items()))
    print(f"{sum(killed.values())} kills ({kinds}) in {time.monotonic() - began:.0f} s; {len(broken)} rules broken")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
