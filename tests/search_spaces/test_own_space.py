"""A space of the user's own, given as module:object: the worked example of the documentation, executed."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from unet_strategies import DIGITS, points

from nas.errors import ConfigError
from nas.protocols import SearchSpace
from search_spaces import get_space, known_space, stored_space
from search_spaces.own import REQUIRED, OwnSpace

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "docs" / "own-space.md").read_text()
MODULE = re.search(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)[1]
COMMANDS = re.search(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)[1].splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "chains.py").write_text(MODULE)
    return folder


@pytest.fixture
def space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield get_space("chains:SPACE")
    sys.modules.pop("chains", None)


def test_the_example_is_a_space_from_the_current_folder(space: Any) -> None:
    @settings(deadline=None)
    @given(points(space.distributions(DIGITS)))
    def laws(params: dict[str, Any]) -> None:
        candidate = space.decode(params, DIGITS, 3)
        assert space.decode(space.encode(candidate), DIGITS, 3) == candidate
        assert space.spec(candidate.spec.to_dict()) == candidate.spec

    laws()
    candidate = space.decode({"depth": 3, "width": 8, "learning_rate": 0.01}, DIGITS, 3)
    network = space.build(candidate.spec, DIGITS)
    denoised, logits = network(torch.rand(2, 1, 8, 8))
    assert denoised.shape == (2, 1, 8, 8)
    assert logits.shape == (2, 10)
    assert space.cost(candidate.spec, DIGITS).params == sum(p.numel() for p in network.parameters())


@pytest.mark.slow
def test_the_commands_of_the_example_run(folder: Path) -> None:
    quick = {"search": ["--trials", "2", "--epochs", "1", "--subset", "60", "--cpus-per-trial", "0.5"]}
    for line in COMMANDS:
        command = line.split()[1:] + quick.get(line.split()[1], [])
        done = subprocess.run(
            [sys.executable, ROOT / "app_cli.py", *command], cwd=folder, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [sys.executable, ROOT / "app_cli.py", "studies", "show", "chains", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(shown.stdout)
    assert facts["config"]["space"] == "chains:SPACE"
    assert facts["counts"]["trained"] == 2
    assert facts["counts"]["failed"] == 0
    assert (folder / "chains-bundle/model.onnx").is_file()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("absent_module:SPACE", None, "cannot be imported (ModuleNotFoundError: No module named 'absent_module')"),
        ("own_a:SPACE", "", "cannot be imported (AttributeError: "),
        ("own_b:SPACE", "raise RuntimeError('planted')", "own_b.py line 1); give module:object"),
        ("own_c:SPACE", "SPACE = 3", "lacks 'name'; give an object with name, version, distributions, decode"),
        ("own_d:", "", "cannot be imported"),
        (":SPACE", None, "cannot be imported (ValueError: Empty module name)"),
        ("own_e:SPACE", MODULE.replace("version = 1", "version = '1'").replace("chains:", "own_e:"), "the version '1'"),
        ("search_spaces:SPACES", None, "lacks 'name'"),
        (
            "search_spaces.unet.space:UNetSpace",
            None,
            "calls itself <member 'name' of 'UNetSpace' objects>; set its name to 'search_spaces.unet.space:UNetSpace'",
        ),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(
    name: str, source: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if source is not None:
        (tmp_path / f"{name.split(':')[0]}.py").write_text(source)
    with pytest.raises(ConfigError) as refused:
        get_space(name)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "returned", "arguments", "message"),
    [
        ("distributions", {}, (DIGITS,), "returns {}, must return Optuna's distributions by name, at least one"),
        ("distributions", {"depth": [1, 2]}, (DIGITS,), "returns {'depth': [1, 2]}, must return Optuna's"),
        ("decode", (1, 2), ({}, DIGITS, 3), "decode returns (1, 2), must return a nas.types.Candidate"),
        ("encode", None, (None,), "encode returns None, must return hyperparameters by name"),
        ("spec", {"depth": 1}, ({},), "spec returns {'depth': 1}, must return a hashable value with to_dict()"),
        ("limits", [5], (DIGITS,), "limits returns [5], must return nas.types.Constraint values"),
        ("cost", (1, 2), (None, DIGITS), "cost returns (1, 2), must return a nas.types.Cost"),
        ("build", "net", (None, DIGITS), "build returns 'net', must return a torch.nn.Module"),
        ("baselines", [], (DIGITS, 3, ()), "baselines returns [], must return reference networks by name"),
    ],
)
def test_what_a_space_hands_over_is_looked_at(
    space: Any, monkeypatch: pytest.MonkeyPatch, method: str, returned: Any, arguments: tuple[Any, ...], message: str
) -> None:
    monkeypatch.setattr(sys.modules["chains"].ChainSpace, method, lambda self, *_: returned, raising=False)
    with pytest.raises(ConfigError) as refused:
        getattr(space, method)(*arguments)
    assert f"search space 'chains:SPACE': {method} " in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_space_leaves_out_has_a_default_and_what_it_has_is_taken(
    space: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert space.baselines(DIGITS, 3, ()) == {}
    candidate = space.decode({"depth": 3, "width": 8, "learning_rate": 0.01}, DIGITS, 3)
    assert space.learns_classes(candidate.spec)
    monkeypatch.setattr(
        sys.modules["chains"].ChainSpace, "baselines", lambda self, *_: {"dncnn": candidate}, raising=False
    )
    assert space.baselines(DIGITS, 3, ()) == {"dncnn": candidate}


def test_every_part_of_the_protocol_is_required_or_has_a_default() -> None:
    parts = {name for name in vars(SearchSpace) if not name.startswith("_")}
    assert parts == {*REQUIRED, "baselines", "learns_classes", "prior"}
    assert parts <= set(dir(OwnSpace))


def test_an_own_space_can_be_sent_to_a_worker(space: Any) -> None:
    sent = pickle.loads(pickle.dumps(space))
    assert (sent.name, sent.version) == ("chains:SPACE", 1)
    assert sent.distributions(DIGITS) == space.distributions(DIGITS)


def test_a_name_that_is_not_the_users_own_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="search space 'planted:SPACE' is unknown"):
        known_space("planted:SPACE")
    assert "planted" not in sys.modules


def test_a_stored_study_imports_no_code_that_the_user_did_not_name(
    space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for said in (None, "unet", "chains:SPACE"):
        with pytest.raises(ConfigError, match="code would be imported; if you trust it, say so with `space` p"):
            stored_space("planted:SPACE", said)
    assert stored_space("chains:SPACE", "chains:SPACE").name == "chains:SPACE"
    assert stored_space("unet").name == "unet"
