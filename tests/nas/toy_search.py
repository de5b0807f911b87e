"""A study of toy networks that is searched as any other, for tests of whole searches through Ray Tune."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy_space import ToySpace

from nas.data.splits import Dataset
from nas.engine.search import Progress, SearchEnd, run_search
from nas.settings import RunOptions, StudyConfig
from nas.types import Objective, Task
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
OBJECTIVES = (
    Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
    Objective(name="accuracy", direction="maximize", unit="%", reference=10.0),
    Objective(name="stability", direction="maximize", unit="", reference=0.0),
)


class Search:
    """A study of toy networks in a folder of its own."""

    def __init__(
        self, folder: Path, digits: Dataset, space: ToySpace, storage: str | None = None, **changes: Any
    ) -> None:
        self.files = folder / "files"
        self.digits = digits
        self.space = space
        settings: dict[str, Any] = {
            "study": "toy",
            "space": "toy",
            "space_version": 1,
            "data": "digits",
            "fingerprint": digits.fingerprint,
            "task": TASK,
            "epochs": 3,
            "objectives": OBJECTIVES,
            "constraints": space.limits(TASK),
            "sampler": "random",
        }
        config = StudyConfig(**settings | changes)
        opened = open_storage(storage or f"sqlite:///{folder / 'studies.db'}")
        self.ledger: SqlLedger = create_study(opened, config, space.distributions(TASK), {}, "test")
        self.study = StudyReader.open(config.study, opened)
        self.when_running: Callable[[], None] | None = None

    def run(self, trials: int | None, **options: Any) -> SearchEnd:
        options = {"concurrency": 1, "cpus_per_trial": 1} | options  # each more starts a process, which takes seconds
        return run_search(
            self.ledger.config,
            self.space,
            self.ledger,
            self.digits,
            self.files,
            RunOptions(trials=trials, **options),
            self._observe,
        )

    def _observe(self, progress: Progress) -> None:
        if progress.running and self.when_running is not None:
            call, self.when_running = self.when_running, None
            call()

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.ledger.optuna_study.get_trials(deepcopy=False)]
