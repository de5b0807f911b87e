"""A made-up study: configuration, candidates, measurements, a driver that needs no training,
and databases on a PostgreSQL server when SKIPNAS_TEST_POSTGRES names one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from nas.outcome import Outcome
from nas.search.past import Propose
from nas.search.sampler import proposer
from nas.settings import StudyConfig
from nas.types import (
    Candidate,
    Constraint,
    Cost,
    EpochRow,
    LatencySetting,
    Measurement,
    Objective,
    ProbeCurve,
    Recipe,
    Task,
    from_flat,
)
from studies.reading.study import StudyReader
from studies.store.ledger import SqlLedger
from studies.store.urls import parse_url

POSTGRES = os.environ.get("SKIPNAS_TEST_POSTGRES")
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 5),
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "fusion": CategoricalDistribution(["none", "concat", "add"]),
}


HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}


def spawn(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process; it says when it is ready on stdout, and is let go on stdin."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@dataclass(frozen=True)
class FakeSpec:
    depth: int

    def to_dict(self) -> dict[str, Any]:
        return {"depth": self.depth}


def make_config(name: str = "first", **changes: Any) -> StudyConfig:
    settings: dict[str, Any] = {
        "study": name,
        "space": "unet",
        "space_version": 1,
        "data": "digits",
        "fingerprint": "f" * 16,
        "task": Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50"),
        "epochs": 27,
        "objectives": (
            Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
            Objective(name="latency", direction="minimize", unit="ms", reference=100.0),
        ),
        "constraints": (Constraint(name="params", upper=2_000_000), Constraint(name="macs", upper=10_000_000)),
    }
    return StudyConfig(**settings | changes)


def make_candidate(depth: int = 2) -> Candidate:
    recipe = Recipe(epochs=27, batch_size=64, learning_rate=1e-3, weight_decay=0.0, classification_weight=1.0)
    return Candidate(spec=FakeSpec(depth), recipe=recipe)


LATENCY = LatencySetting(height=8, width=8, threads=1, provider="cpu")
"""Where a study that is searched or confirmed measures latency; what has none is a study of an older version."""


def make_measurement(psnr: float = 20.0, latency: float = 2.0, **values: float) -> Measurement:
    return Measurement(
        values={"psnr": psnr, "latency": latency, "accuracy": 97.5} | values,
        probe=ProbeCurve(steps=(1, 2), denoise=(0.5, 0.25), classify=(1.0, 0.75)),
        gates=({"mean": 1.0, "minimum": 0.5, "maximum": 1.5},),
        seconds=11.5,
        peak_memory=300.0,
        seed=7,
    )


def row(epoch: int, **changes: Any) -> EpochRow:
    """A validated epoch; metrics and other fields may be changed, and a metric that is None was not measured."""
    values = {"psnr": 20.0 + epoch, "accuracy": 90.0, "stability": 0.5}
    fields = {"epoch": epoch, "denoise_loss": 0.5, "classify_loss": 0.25, "seconds": 1.5}
    return from_flat(EpochRow, fields | values | changes)


COST = Cost(params=1_000_000, macs=9_000_000)


def at_random(ledger: SqlLedger, seed: int = 0) -> Propose:
    """Proposes anything."""
    return proposer("random", seed, ledger.distributions, (), lambda params: True)


def read(ledger: SqlLedger) -> StudyReader:
    """The study as people read it."""
    return StudyReader.open(ledger.config.study, ledger.storage)


def claim(ledger: SqlLedger) -> tuple[int, dict[str, Any]] | None:
    return ledger.claim(at_random(ledger))


class Driver:
    """Does to a ledger what a search does: asks, starts, ends. Without a depth each candidate is a new one."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.ledger = ledger

    def ask(self) -> int:
        return self.ledger.ask(at_random(self.ledger))[0]

    def give_back(self) -> None:
        """Gives up a place: a trial that fails takes none."""
        self.ledger.fail(self.ask(), Outcome.EXCEPTION)

    def start(self, depth: int | None = None) -> int:
        number = self.ask()
        candidate = make_candidate(1000 + number if depth is None else depth)
        assert self.ledger.start(number, candidate, COST, "worker-1")
        return number

    def reject(self, depth: int, outcome: Outcome = Outcome.DUPLICATE) -> int:
        number = self.ask()
        self.ledger.reject(number, make_candidate(depth), COST, outcome)
        return number

    def complete(self, psnr: float = 20.0, latency: float = 2.0, depth: int | None = None, **values: float) -> int:
        number = self.start(depth)
        self.ledger.complete(number, make_measurement(psnr, latency, **values))
        return number


def driver_until(url: str, trials: int, seed: int, dies_after: int) -> None:
    """A driver as another process runs it: draws from few candidates until the study holds `trials` of them.

    It says that it is ready and waits for a line. It is killed in the middle of its trial number `dies_after`, if
    that is not 0, and says so first.
    """
    random = Random(seed)
    with SqlLedger.open("first", url) as ledger:
        propose = at_random(ledger, seed)
        with ledger.drive():
            print("ready", flush=True)
            sys.stdin.readline()
            while ledger.counts().trained < trials:
                claimed = ledger.claim(propose)
                if claimed is not None:
                    number = claimed[0]
                elif ledger.reserve(trials):
                    number, _ = ledger.ask(propose)
                else:
                    time.sleep(0.05)
                    continue
                record = read(ledger).trial(number)
                depth = random.randrange(2 * trials) if record.spec is None else record.spec["depth"]
                while not ledger.start(number, make_candidate(depth), COST, f"{os.getpid()}"):
                    ledger.reject(number, make_candidate(depth), COST, Outcome.DUPLICATE)
                    if claimed is not None:
                        break
                    number, depth = ledger.ask(propose)[0], random.randrange(2 * trials)
                else:
                    ledger.epochs(number, [row(1)])
                    dies_after -= 1
                    if dies_after == 0:
                        print("dying", flush=True)
                    time.sleep(0.05)  # a trial takes a while, so that every driver gets some
                    if dies_after == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    ledger.complete(number, make_measurement())


@contextmanager
def fresh_postgres() -> Iterator[str]:
    """The URL of a database of its own on the test server."""
    server = make_url(POSTGRES or "")
    name = f"skipnas_{uuid.uuid4().hex[:12]}"
    engine = create_engine(parse_url(POSTGRES), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
