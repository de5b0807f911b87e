"""Every internal of Optuna that the project relies on, by name: when a new Optuna changes one, its test says which."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import Table, UniqueConstraint, select
from study_samples import DISTRIBUTIONS, Driver

from studies.store import optuna_bridge as bridge
from studies.store.ledger import SqlLedger

WHAT_TO_DO = (
    f"Optuna {optuna.__version__} changed it (seen to work: {', '.join(bridge.SEEN_TO_WORK)}); "
    "mend studies/store/optuna_bridge.py"
)

COLUMNS: list[tuple[Table, str, str]] = [
    (bridge.OPTUNA_STUDIES, "studies", "study_id study_name"),
    (bridge.OPTUNA_TRIALS, "trials", "trial_id number study_id state datetime_start datetime_complete"),
    (bridge.PARAMS, "trial_params", "trial_id param_name param_value distribution_json"),
    (bridge.VALUES, "trial_values", "trial_id objective value value_type"),
    (bridge.STUDY_ATTRIBUTES, "study_system_attributes", "study_id key value_json"),
    (bridge.STUDY_USER_ATTRIBUTES, "study_user_attributes", "study_id key value_json"),
    (bridge.SYSTEM_ATTRIBUTES, "trial_system_attributes", "trial_id key value_json"),
    (bridge.USER_ATTRIBUTES, "trial_user_attributes", "trial_id key value_json"),
]
"""Tables, their names, and the columns that are read or written."""

SIGNATURES: list[tuple[Callable[..., Any], str]] = [
    (RDBStorage.__init__, "self url engine_kwargs skip_compatibility_check skip_table_creation"),
    (RDBStorage.delete_study, "self study_id"),
    (RDBStorage.get_study_name_from_id, "self study_id"),
    (RDBStorage.set_study_system_attr, "self study_id key value"),
    (RDBStorage.get_current_version, "self"),
    (RDBStorage.get_head_version, "self"),
    (RDBStorage.get_all_versions, "self"),
    (RDBStorage.remove_session, "self"),
    (BaseSampler.before_trial, "self study trial"),
    (BaseSampler.infer_relative_search_space, "self study trial"),
    (BaseSampler.sample_relative, "self study trial search_space"),
    (BaseSampler.sample_independent, "self study trial param_name param_distribution"),
]
"""Functions that are called or overridden, and the parameters that they are known by."""


@pytest.mark.parametrize(("table", "name", "columns"), COLUMNS, ids=[name for _, name, _ in COLUMNS])
def test_tables_have_the_columns_that_are_used(table: Table, name: str, columns: str) -> None:
    assert table.name == name, WHAT_TO_DO
    for column in columns.split():
        assert column in table.c, f"table {name} has no column {column}: {WHAT_TO_DO}"
    filled = {*columns.split(), *table.primary_key.columns.keys()}
    for column in table.c:
        left_out = column.name not in filled and not column.nullable and column.default is None
        assert not left_out, f"column {name}.{column.name} must be filled by whoever inserts: {WHAT_TO_DO}"


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES, ids=[call.__qualname__ for call, _ in SIGNATURES])
def test_functions_have_the_parameters_that_are_used(function: Callable[..., Any], parameters: str) -> None:
    known = inspect.signature(function).parameters
    for name in parameters.split():
        assert name in known, f"{function.__qualname__} has no parameter {name}: {WHAT_TO_DO}"


def test_every_table_names_its_study_or_its_trial() -> None:
    """`delete_study` finds the rows of a study by these columns."""
    of_neither = {
        name
        for name, table in bridge.OPTUNA_METADATA.tables.items()
        if not {"study_id", "trial_id"} & {*table.c.keys()}
    }
    assert of_neither == {"version_info"}, WHAT_TO_DO


def test_a_trial_has_each_hyperparameter_once() -> None:
    """So that a driver may write them again when an answer was lost."""
    unique = [[*c.columns.keys()] for c in bridge.PARAMS.constraints if isinstance(c, UniqueConstraint)]
    assert ["trial_id", "param_name"] in unique, WHAT_TO_DO


def test_states_are_those_of_optuna() -> None:
    assert [*bridge.OPTUNA_TRIALS.c.state.type.enums] == [state.name for state in TrialState], WHAT_TO_DO  # type: ignore[attr-defined]
    assert bridge.FINITE.name == "FINITE", WHAT_TO_DO


def test_a_study_knows_its_number_and_drops_what_it_read(ledger: SqlLedger) -> None:
    study = optuna.load_study(study_name="first", storage=ledger.storage.optuna)
    assert bridge.optuna_id(study) == ledger.study_id, f"Study._study_id: {WHAT_TO_DO}"
    assert study._get_trials(use_cache=True) == []
    Driver(ledger).ask()
    assert study._get_trials(use_cache=True) == [], f"Study._get_trials: {WHAT_TO_DO}"
    bridge.forget_trials(study)
    assert len(study._get_trials(use_cache=True)) == 1, f"Study._thread_local.cached_all_trials: {WHAT_TO_DO}"


def test_a_study_s_attributes_are_written_as_optuna_writes_them(ledger: SqlLedger) -> None:
    study = optuna.create_study(study_name="theirs", storage=ledger.storage.optuna, directions=["maximize"] * 2)
    with ledger.storage.transaction() as connection:
        for identity in ("first", "second"):
            bridge.bear_identity(connection, bridge.optuna_id(study), identity)
        bridge.name_metrics(connection, bridge.optuna_id(study), ["psnr", "latency"])
    again = optuna.load_study(study_name="theirs", storage=ledger.storage.optuna)
    assert again.user_attrs == {bridge.IDENTITY: "second"}, WHAT_TO_DO
    assert again.metric_names == ["psnr", "latency"], f"attribute {bridge.METRIC_NAMES}: {WHAT_TO_DO}"


def test_what_was_enqueued_stands_in_an_attribute(ledger: SqlLedger) -> None:
    ledger.optuna_study.enqueue_trial({"depth": 3})
    (waiting,) = ledger.optuna_study.get_trials()
    assert waiting.system_attrs == {"fixed_params": {"depth": 3}}, f"attribute fixed_params: {WHAT_TO_DO}"
    assert bridge.enqueued_params(waiting) == {"depth": 3}
    study = optuna.load_study(study_name="first", storage=ledger.storage.optuna)
    assert bridge.enqueued_params(optuna.trial.create_trial(value=0.0)) == {}
    assert study.ask(DISTRIBUTIONS).params["depth"] == 3


def test_constraints_are_written_as_optuna_writes_them(ledger: SqlLedger) -> None:
    trial = optuna.load_study(study_name="first", storage=ledger.storage.optuna).ask()
    trial.set_constraint("params", -3.0)
    ours = bridge.constraint_attributes({"params": -3.0, "macs": 2.0})
    told = ledger.optuna_study.get_trials()[trial.number].system_attrs
    assert told.items() <= ours.items(), f"attribute constraints:NAME: {WHAT_TO_DO}"
    assert ours["constraints"] == [-3.0, 2.0]
    assert bridge.constraint_attributes({}) == {}


def test_a_picture_is_written_as_optuna_writes_artifacts(ledger: SqlLedger, tmp_path: Any) -> None:
    trial = optuna.load_study(study_name="first", storage=ledger.storage.optuna).ask()
    (tmp_path / "trial-7.png").touch()
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path)
    given = optuna.artifacts.upload_artifact(
        artifact_store=store, file_path=str(tmp_path / "trial-7.png"), study_or_trial=trial, mimetype="image/png"
    )
    ((key, text),) = ledger.optuna_study.get_trials()[trial.number].system_attrs.items()
    ((our_key, our_text),) = bridge.picture_attribute(26, 7).items()
    assert (key, our_key) == (f"artifacts:{given}", "artifacts:1a-7"), f"attribute artifacts:ID: {WHAT_TO_DO}"
    assert json.loads(our_text) == json.loads(text) | {"artifact_id": "1a-7"}, f"attribute artifacts:ID: {WHAT_TO_DO}"


def test_a_trial_is_stored_as_optunas_own_ask_and_tell_store_it(ledger: SqlLedger) -> None:
    """One trial through Optuna, one through the ledger: the same rows, but for their number and the moment."""
    ledger.optuna_study.enqueue_trial({"depth": 2, "learning_rate": 1e-3, "fusion": "add"})
    ledger.optuna_study.enqueue_trial({"depth": 2, "learning_rate": 1e-3, "fusion": "add"})
    plain = optuna.load_study(study_name="first", storage=ledger.storage.optuna)
    theirs = plain.ask(DISTRIBUTIONS)
    plain.tell(theirs, [20.0, 2.0])
    ours = Driver(ledger).complete()
    told = [trial.number for trial in plain.get_trials() if trial.state is TrialState.COMPLETE]
    assert told == [theirs.number, ours]
    for table, name, columns in COLUMNS[1:4]:
        left_out = {*table.primary_key.columns.keys(), "trial_id", "number", "datetime_start", "datetime_complete"}
        same = [table.c[column] for column in columns.split() if column not in left_out]
        with ledger.storage.transaction() as connection:
            ids = connection.scalars(select(bridge.OPTUNA_TRIALS.c.trial_id).order_by(bridge.OPTUNA_TRIALS.c.number))
            first, second = (
                connection.execute(select(*same).where(table.c.trial_id == trial_id).order_by(*same)).all()
                for trial_id in list(ids)
            )
        assert first == second, f"rows of {name}: {WHAT_TO_DO}"
        assert first


def test_times_are_stored_in_utc(ledger: SqlLedger) -> None:
    optuna.load_study(study_name="first", storage=ledger.storage.optuna).ask()
    with ledger.storage.transaction() as connection:
        stored = connection.scalar(select(bridge.OPTUNA_TRIALS.c.datetime_start))
    assert stored is not None
    assert abs((stored - datetime.now(UTC).replace(tzinfo=None)).total_seconds()) < 60, (
        f"trials.datetime_start: {WHAT_TO_DO}"
    )
    assert abs((bridge.now() - stored).total_seconds()) < 60


def test_random_draws_look_at_neither_study_nor_trial() -> None:
    """Each is a uniform draw from a generator of its own."""
    nothing: Any = None
    sampler, generator = RandomSampler(7), np.random.RandomState(7)
    for distribution in (FloatDistribution(0.0, 2.0), IntDistribution(0, 9), CategoricalDistribution(list("abc"))):
        drawn = sampler.sample_independent(nothing, nothing, "x", distribution)
        if isinstance(distribution, FloatDistribution):
            assert drawn == generator.uniform(0.0, 2.0), f"RandomSampler.sample_independent: {WHAT_TO_DO}"
        elif isinstance(distribution, IntDistribution):
            assert drawn == round(generator.uniform(-0.5, 9.5)), f"RandomSampler.sample_independent: {WHAT_TO_DO}"
        else:
            generator.uniform(size=3)
            assert drawn in "abc"
