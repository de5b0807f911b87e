"""Reference networks in a confirmation: each with its own recipe, and with that of the knee."""

from dataclasses import replace
from pathlib import Path

from study_samples import Driver, make_measurement

from nas.settings import RunOptions
from search_spaces.unet.references import reference_network
from studies.commands.confirm import study_members
from studies.commands.search import prepare
from studies.reading.study import StudyReader
from studies.settings import SearchRequest


def test_a_confirmation_trains_each_reference_with_its_own_recipe_and_with_that_of_the_knee(tmp_path: Path) -> None:
    request = SearchRequest(study="s", storage=f"sqlite:///{tmp_path / 's.db'}", epochs=3, baselines=False)
    search = prepare(request, RunOptions(trials=20))
    task, space = search.ledger.config.task, search.space
    knee = reference_network("unet++", task, epochs=3)
    knee = replace(knee, recipe=replace(knee.recipe, learning_rate=0.006, batch_size=16))
    params = space.encode(knee)
    search.ledger.optuna_study.enqueue_trial({name: params[name] for name in search.ledger.distributions})
    number = Driver(search.ledger).ask()
    assert search.ledger.start(number, knee, space.cost(knee.spec, task), "worker")
    search.ledger.complete(number, make_measurement(20.0, accuracy=90.0, stability=0.7))
    members = study_members(StudyReader.open("s", search.ledger.storage), space, top=8, baselines=True)
    named = {member.reference: member for member in members}
    for name in ("unet", "cross-stitch", "single-task-classify"):
        own, other = named[name].candidate, named[f"{name}, recipe of trial {number}"].candidate
        assert own == reference_network(name, task, epochs=3)
        assert other.spec == own.spec
        assert (other.recipe.learning_rate, other.recipe.batch_size, other.recipe.optimizer) == (0.006, 16, "adamw")
    found = named[f"unet++, recipe of trial {number}"]
    assert (found.number, found.candidate) == (number, knee)
    assert len(members) == 2 * 15
