"""A study that goes on is the study that was made, or says where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from PIL import Image
from sqlalchemy import text

from nas.errors import StudyError
from nas.settings import RunOptions
from studies.commands.search import Search, prepare
from studies.settings import SearchRequest
from studies.store.database import open_storage


def prepared(folder: Path, **asked: Any) -> Search:
    request = SearchRequest(
        study="new", storage=f"sqlite:///{folder / 's.db'}", epochs=3, precision="fp32", baselines=False, **asked
    )
    search = prepare(request, RunOptions(trials=1))
    search.ledger.close()
    return search


def test_what_was_asked_for_is_what_the_study_is(tmp_path: Path) -> None:
    asked = {"noise": "gaussian:25.0", "objectives": ("psnr", "macs"), "max_params": 9000, "early_stopping": True}
    config = prepared(tmp_path, **asked, subset=100, seed=3, within_rank="epsilon-net", sampler="random").ledger.config
    assert (config.task.noise, config.epochs, config.subset, config.seed) == ("gaussian:25", 3, 100, 3)
    assert [o.name for o in config.objectives] == ["psnr", "macs"]
    assert {limit.name: limit.upper for limit in config.constraints}["params"] == 9000
    assert (config.early_stopping, config.within_rank, config.sampler) == (True, "epsilon-net", "random")
    assert prepared(tmp_path).ledger.config == config, "what is not asked for is as the study has it"
    assert prepared(tmp_path, **asked, subset=100, seed=3).ledger.config == config
    with pytest.raises(StudyError) as refused:
        prepared(tmp_path, noise="gaussian:50", subset=60, objectives=("psnr",))
    for told in (
        "'new' is fixed where you ask otherwise",
        "noise: study has gaussian:25, asked for gaussian:50; subset: study has 100, asked for 60",
        "objectives: study has psnr,macs, asked for psnr",
        "give another `study`",
    ):
        assert told in str(refused.value)


def test_data_that_changed_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path)
    with open_storage(f"sqlite:///{tmp_path / 's.db'}") as storage, storage.session() as session:
        (config,) = session.execute(text("SELECT config FROM skipnas_studies")).one()
        changed = json.dumps(json.loads(config) | {"fingerprint": "0" * 16})
        session.execute(text("UPDATE skipnas_studies SET config = :config"), {"config": changed})
    with pytest.raises(
        StudyError, match=r"data of study 'new' .digits. has changed: fingerprint .*, was 0{16}; restore it"
    ):
        prepared(tmp_path)


def test_objectives_that_drop_out_are_no_difference(tmp_path: Path) -> None:
    """The same command again goes on, also where the data has no labels."""
    (tmp_path / "images").mkdir()
    for index in range(12):
        Image.effect_noise((32, 32), 20 + index).save(tmp_path / "images" / f"{index}.png")
    asked = {"data": f"images:{tmp_path / 'images'}", "objectives": ("psnr", "accuracy", "stability")}
    first = prepared(tmp_path, **asked)
    assert "objective accuracy drops out: the data has no labels" in first.notes
    assert prepared(tmp_path, **asked).ledger.config == first.ledger.config


def test_a_study_of_plain_optuna_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    prepared(tmp_path, subset=60)
    with open_storage(f"sqlite:///{tmp_path / 's.db'}") as storage:
        theirs = optuna.create_study(study_name="theirs", storage=storage.optuna)
        theirs.tell(theirs.ask(), 1.0)
    said: list[str] = []
    request = SearchRequest(study="theirs", storage=f"sqlite:///{tmp_path / 's.db'}")
    with pytest.raises(StudyError, match=r"'theirs' .* was not made by skipnas; choose another name"):
        prepare(request, RunOptions(trials=1), said.append)
    assert said == []
