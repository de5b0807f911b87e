"""A bundle exported again, in formats that it did not have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import FACTS

from nas.bundles.files import ARCHITECTURE, CARD, WEIGHTS
from nas.bundles.formats import Further
from nas.bundles.sums import write_sums
from nas.errors import BundleError, ConfigError
from studies import zoo
from studies.bundles import open_bundle
from studies.commands.bundle_lines import export_lines
from studies.commands.export import export
from studies.settings import SizeLimits

INT8 = {"pays": True, "told": "half of the size", "images": 128}


def with_facts(bundle: Path, target: Path, facts: dict[str, Any]) -> Path:
    """A copy of a bundle, with other facts."""
    shutil.copytree(bundle, target)
    value = json.loads((target / ARCHITECTURE).read_text())
    (target / ARCHITECTURE).write_text(json.dumps(value | {"facts": facts}))
    write_sums(target)
    return target


@pytest.fixture(scope="module")
def folder(standard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_facts(standard, tmp_path_factory.mktemp("again") / "bundle", FACTS | {"int8": INT8})


def test_the_network_and_its_figures_stay_and_formats_come(folder: Path, tmp_path: Path) -> None:
    further = Further(size=[(9, 14)], float16_weights=True)
    facts = export(str(folder), tmp_path / "new", further=further, licence="CC0-1.0")
    old, new = open_bundle(folder), open_bundle(tmp_path / "new")
    assert new.candidate == old.candidate
    assert new.classes == old.classes
    for name, tensor in old.network.state_dict().items():
        assert tensor.equal(new.network.state_dict()[name]), name
    assert new.facts == FACTS | {"licence": "CC0-1.0", "float16_weights": facts["float16_weights"]}
    assert facts["int8"] is None
    assert "model.9x14.onnx" in facts["files"]
    assert set(facts["differences"]) == {"onnx", "torch_export", "9x14"}
    lines = export_lines(facts)
    assert lines[0] == f"the network of {folder}"
    assert "validation split: PSNR 20.12 dB, accuracy 97.53 %" in "\n".join(lines)
    assert f"model.float16-weights.onnx is {facts['float16_weights']['told']}" in lines
    assert "CC0-1.0" in (tmp_path / "new" / CARD).read_text()


@pytest.mark.parametrize(("deep", "file"), [(True, "model.uint16.onnx"), (False, "model.uint8.onnx")])
def test_pixels_are_those_of_the_training_images_files(
    folder: Path, tmp_path: Path, quick: None, deep: bool, file: str
) -> None:
    old = with_facts(folder, tmp_path / "old", FACTS | {"deep": deep})
    facts = export(str(old), tmp_path / "new", further=Further(integer_io=True))
    assert file in facts["files"]
    assert open_bundle(tmp_path / "new").facts["deep"] is deep


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"pick": "psnr"}, "pick"),
        ({"prefer": {"psnr": 2.0}}, "prefer"),
        ({"limits": SizeLimits(max_params=9)}, "max_params"),
        ({"further": Further(quantize=True)}, "quantize"),
        ({"data_root": Path("data")}, "data_root"),
        ({"own_space": "a:b"}, "space"),
        ({"storage": "a.db"}, "storage"),
    ],
)
def test_settings_of_a_study_are_refused(folder: Path, tmp_path: Path, given: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{name}` is for a study, and .* is a bundle; leave it out"):
        export(str(folder), tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_the_storage_of_the_environment_is_none_that_was_given(
    folder: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKIPNAS_STORAGE", "a.db")
    assert export(str(folder), tmp_path / "new", storage="a.db")["to"] == str(tmp_path / "new")
    with pytest.raises(ConfigError, match="`storage` is for a study"):
        export(str(folder), tmp_path / "other", storage="b.db")


def test_a_shipped_bundle_is_exported_by_its_name(
    folder: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "SHIPPED", folder.parent)
    monkeypatch.chdir(tmp_path)
    facts = export(folder.name, Path("new"))
    assert facts["files"] == sorted(path.name for path in Path("new").iterdir())
    with pytest.raises(ConfigError) as refused:
        export("gary", Path("other"))
    assert str(refused.value) == (
        "no studies yet in sqlite:///runs/studies.db; run `skipnas search` first or name another `storage`; and 'gary' "
        "is neither the folder of a bundle nor a bundle that skipnas ships (bundle)"
    )


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"values": {"psnr": "loud"}}, "has facts that no export writes"),
        ({"images": 3}, "has facts that no export writes"),
        (
            {"confirmed": {}, "start": {"seen": 1}},
            "has facts that no export writes",
        ),
    ],
)
def test_facts_that_no_export_writes_are_one_line(
    folder: Path, tmp_path: Path, facts: dict[str, Any], told: str
) -> None:
    for name in (ARCHITECTURE, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    value = json.loads((tmp_path / ARCHITECTURE).read_text())
    (tmp_path / ARCHITECTURE).write_text(json.dumps(value | {"facts": FACTS | facts}))
    write_sums(tmp_path)
    with pytest.raises(BundleError, match=rf"architecture\.json: {told}"):
        export(str(tmp_path), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_bundle_of_an_older_version_is_told_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    for name in (ARCHITECTURE, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    value = json.loads((tmp_path / ARCHITECTURE).read_text())
    del value["preparation"]
    (tmp_path / ARCHITECTURE).write_text(json.dumps(value))
    write_sums(tmp_path)
    told = r"architecture\.json: lacks 'preparation', as bundles of older versions do; export its study again, or train"
    with pytest.raises(BundleError, match=told):
        export(str(tmp_path), tmp_path / "new")
    assert not (tmp_path / "new").exists()
