"""Searches that are killed again and again: ``python -m benchmarks.chaos --kills 200 [--seed 0]``.

Searches of real small networks on the digits run in processes of their own. One in three has a Ray of its own, and the
others run on a cluster of two nodes. At random moments a process is killed with signal 9: the driver with its whole
Ray, a worker, or a node's raylet. A search that ended by it is started again with the same command, until its study is
complete. Then the study must be as if nothing had happened (`violations`). The program prints one line for each search
and exits with 1 when a rule is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.lib import ROOT
from nas.outcome import Outcome
from nas.types import EpochRow, from_flat
from studies.reading.study import StudyReader
from studies.store.files import files_dir

LOSSES = 2
"""Workers and nodes that are killed in one driver's life at most; more may exhaust `nas.engine.searcher.RETRIES`."""
STARTUP = 240.0
"""Seconds within which a search must have begun to train."""
PATIENCE = 300.0
"""Seconds within which a search that is left alone must end."""
EPOCHS = 27
MEMORY = 100 * 2**20
"""The size in bytes of the object store of each node of a cluster."""


@dataclass
class Search:
    """One study in a folder of its own, and everything that was seen of it while it was being killed.

    Attributes:
        checkpoints: trial number -> rows of the longest checkpoint that was there at a kill.
        kills: number of kills by kind of process.
        faults: sentences about anything that went wrong on the way.
    """

    folder: Path
    trials: int
    seed: int
    address: str | None = None
    checkpoints: dict[int, list[EpochRow]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'chaos.db'}"

    def start(self) -> None:
        """Starts the search's command, which is the same each time."""
        command = [sys.executable, str(ROOT / "app_cli.py"), "search", "--study", "chaos", "--storage", self.url]
        command += ["--trials", str(self.trials), "--epochs", str(EPOCHS), "--subset", "400", "--seed", str(self.seed)]
        command += ["--max-params", "12000", "--early-stopping", "--concurrency", "2", "--cpus-per-trial", "1"]
        command += ["--quiet"]
        if self.address is not None:
            command += ["--address", self.address]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
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

    def note_checkpoints(self) -> None:
        """Remembers which epochs are safe in a checkpoint."""
        for path in files_dir(self.url, "chaos").glob("trial-*.checkpoint"):
            number = int(path.name.split(".")[0].removeprefix("trial-"))
            try:
                rows = [from_flat(EpochRow, row) for row in torch.load(path, weights_only=True)["state"]["rows"]]
            except FileNotFoundError:  # the trial ended meanwhile
                continue
            if len(rows) > len(self.checkpoints.get(number, [])):
                self.checkpoints[number] = rows

    def rows_written(self) -> int:
        """Counts the rows of the epochs table; 0 while there is no table."""
        path = self.folder / "chaos.db"
        if not path.exists():
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return int(connection.execute("SELECT count(*) FROM skipnas_epochs").fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    def has_more_rows(self, before: int) -> bool:
        """Tells whether more than `before` rows are written, or the search has ended."""
        return self.rows_written() > before or self.ended() is not None

    def has_workers(self, top: int) -> bool:
        """Tells whether a worker descends from the process `top`, or the search has ended."""
        return bool(workers_below(top)) or self.ended() is not None


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


def torment(search: Search, kills: int, chance: random.Random, cluster: Cluster | None) -> None:
    """Kills a process `kills` times, or until the study is complete; then lets the search end."""
    search.start()
    spared = 0  # workers and nodes that were killed since the driver was started
    rays = 0  # those of them that were its whole Ray
    while sum(search.kills.values()) < kills and search.ended() is None:
        before = search.rows_written()
        if chance.random() < 0.8 and not wait(partial(search.has_more_rows, before), STARTUP):
            search.faults.append(f"nothing was trained for {STARTUP:g} s")
            break
        time.sleep(chance.uniform(0.0, 1.5))
        if search.ended() is not None:
            break
        victim = chance.choice(["driver", "worker", "worker", "node" if cluster is not None else "worker"])
        if cluster is None and chance.random() < 0.15:
            victim = "node"
        if spared == LOSSES:
            victim = "driver"
        search.note_checkpoints()
        assert search.process is not None
        top = os.getpid() if cluster is not None else search.process.pid
        below = descendants(top)
        if victim == "worker":
            # A fresh cluster may have no worker for a moment between two trials.
            wait(partial(search.has_workers, top), STARTUP)
            workers = workers_below(top)
            if not workers:
                continue
            kill(chance.choice(workers))
            spared += 1
        elif victim == "node" and cluster is not None:
            cluster.kill_node(chance)
            spared += 1
        elif victim == "node":
            raylets = named("raylet/raylet", below)
            if not raylets:
                continue
            kill(raylets[0])
            # It was the only node. The driver starts its Ray again once, and ends at the second loss.
            rays += 1
            if rays == 2:
                if not wait(lambda: search.ended() is not None, STARTUP):
                    search.faults.append(f"the driver hangs {STARTUP:g} s after its Ray was lost twice")
                search.kill_driver()
        else:
            search.kill_driver()
        search.kills[victim] += 1
        if search.ended() is not None:
            search.start()
            spared = rays = 0
    if not wait(lambda: search.ended() is not None, PATIENCE):
        search.faults.append(f"it did not end within {PATIENCE:g} s")
        search.kill_driver()
    elif search.ended() != 0:
        search.faults.append(f"it ended with exit code {search.ended()}")


def violations(search: Search) -> Iterator[str]:
    """Yields every rule that the study of an ended search breaks.

    Exactly N trials are trained, and none is running, failed or lost. Each was asked for and told once. No candidate
    was trained twice, and no epoch that a checkpoint held was trained again. The front is the one that the epochs table
    gives. The folder holds the front's weights, a picture of every complete trial, and nothing else.
    """
    yield from search.faults
    with contextlib.closing(sqlite3.connect(search.folder / "chaos.db")) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            yield f"the database is damaged: {answer}"
    with StudyReader.open("chaos", search.url) as study:
        counts = study.progress.counts()
        if (counts.trained, counts.running, counts.failed, counts.waiting) != (search.trials, 0, 0, 0):
            yield f"{search.trials} trials were to be trained, and the study has {counts}"
        numbers = [trial.number for trial in study.optuna_study.get_trials(deepcopy=False)]
        events = [(kind, number) for number in numbers for kind in ("ask", "tell")]
        if sorted(study.events()) != sorted(events):
            yield f"of {len(numbers)} trials not each was asked for and told once: {sorted(study.events())}"
        if len(study.trained_digests()) != counts.trained:
            yield f"{counts.trained} trials trained {len(study.trained_digests())} candidates"
        for number, rows in search.checkpoints.items():
            # The wall time of an epoch is never the same twice.
            if study.progress.epochs_table(number)[: len(rows)] != rows:
                yield f"trial {number} was trained again up to epoch {len(rows)}, though a checkpoint held it"
        yield from _wrong_front(study)
        kept = sorted(path.name for path in files_dir(search.url, "chaos").glob("[!.]*"))
        weights = [f"trial-{number}.safetensors" for number in study.progress.kept()]
        if kept != sorted([*weights, *(f"trial-{result.number}.png" for result in study.results())]):
            yield f"weights are kept of {study.progress.kept()}, and on disk are {', '.join(kept)}"


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


def run(kills: int, seed: int, folder: Path, *, trials: int = 8, each: int = 7) -> tuple[Counter[str], list[str]]:
    """Runs searches until `kills` kills were made, about `each` in a search.

    Returns:
        the number of kills by kind of process, and the rules that were broken.
    """
    killed: Counter[str] = Counter()
    broken: list[str] = []
    for index in itertools.count():
        left = kills - sum(killed.values())
        if left <= 0:
            break
        began = time.monotonic()
        chance = random.Random(1000 * seed + index)
        cluster = None if index % 3 == 0 else Cluster()
        try:
            place = folder / f"search-{index}"
            place.mkdir(parents=True)
            address = None if cluster is None else cluster.address
            search = Search(place, trials, 1000 * seed + index, address)
            try:
                torment(search, min(each, left), chance, cluster)
            finally:
                if search.process is not None and search.ended() is None:
                    search.kill_driver()
        finally:
            if cluster is not None:
                cluster.close()
        wrong = list(violations(search))
        broken += [f"search {index}: {line}" for line in wrong]
        killed += search.kills
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(search.kills.items()))
        where = "own Ray" if cluster is None else "cluster"
        print(f"search {index} ({where}): killed {kinds or 'nothing'}; {time.monotonic() - began:.0f} s", flush=True)
        for line in wrong:
            print(f"  broken: {line}", flush=True)
    return killed, broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder that studies and logs stay in")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the searches that run are ended first
    began = time.monotonic()
    with contextlib.nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as folder:
        killed, broken = run(given.kills, given.seed, Path(folder).resolve())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(killed.items()))
    print(f"{sum(killed.values())} kills ({kinds}) in {time.monotonic() - began:.0f} s; {len(broken)} rules broken")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
