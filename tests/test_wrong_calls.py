"""Every wrong call gives one line that names the value, exit code 2, and leaves everything as it was."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command_samples import SEARCH, Said, Studied
from PIL import Image

from nas.bundles.sums import write_sums
from studies.store.catalog import list_studies
from studies.store.database import open_storage

Run = Callable[..., Said]

NEW = ["search", "--study", "new", "--trials", "1", "--epochs", "1", "--subset", "100"]


@pytest.fixture(scope="module")
def bundle(_searched: Studied, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real bundle, to be broken in copies."""
    from studies.bundles import export_choice
    from studies.reading.study import StudyReader

    target = tmp_path_factory.mktemp("bundles") / "bundle"
    with StudyReader.open("small", f"sqlite:///{_searched.folder}/runs/studies.db") as study:
        export_choice(study, target)
    return target


@pytest.fixture
def wrong(studied: Studied, bundle: Path) -> Iterator[Path]:
    """A folder with everything that can be wrong in it."""
    folder = studied.folder
    for name, classes in (("one-class", ["cat"]), ("corrupt", ["cat", "dog"]), ("good", ["cat", "dog"])):
        for label in classes:
            (folder / name / label).mkdir(parents=True)
            for i in range(10):
                Image.new("L", (16, 16), 20 * i).save(folder / name / label / f"{i}.png")
    (folder / "corrupt" / "cat" / "3.png").write_bytes(b"\x89PNG but no more")
    (folder / "empty").mkdir()
    (folder / "text.db").write_text("not a database " * 100)
    (folder / "newer.db").unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / "newer.db")) as database, database:
        database.execute("CREATE TABLE skipnas_meta (key VARCHAR(64) PRIMARY KEY, value TEXT)")
        database.execute("INSERT INTO skipnas_meta VALUES ('schema_version', '999')")
    (folder / "text.json").write_text("not JSON")
    (folder / "spec.json").write_text(
        '{"levels": 99, "width": 8, "growth": "constant", "fusion": "add", "gate": "none",'
        '"resampling": "max", "block": "conv", "norm": "none", "kernel": 3}'
    )
    spec = json.loads((folder / "spec.json").read_text()) | {"levels": 2}
    (folder / "recipe.json").write_text(json.dumps({"spec": spec, "recipe": {"learning_rate": float("inf")}}))
    for name in ("truncated", "newer-bundle", "no-weights", "sound", "no-onnx", "bad-onnx"):
        shutil.copytree(bundle, folder / name)
    weights = folder / "truncated" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    facts = json.loads((folder / "newer-bundle" / "architecture.json").read_text())
    key = next(k for k in facts if k.startswith("format"))
    (folder / "newer-bundle" / "architecture.json").write_text(json.dumps(facts | {key: 999}))
    write_sums(folder / "newer-bundle")
    (folder / "no-onnx" / "model.onnx").unlink()
    (folder / "bad-onnx" / "model.onnx").write_bytes(b"no model")
    (folder / "no-weights" / "weights.safetensors").unlink()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        (folder / "port").write_text(str(busy.getsockname()[1]))
        yield folder


CASES = {
    "no command": (["conquer"], "No such command 'conquer'"),
    "no option": (["search", "--colour", "red"], "No such option: --colour"),
    "not a number": (["search", "--trials", "many"], "--trials"),
    "space": ([*NEW, "--space", "vnet"], "'vnet'"),
    "data": ([*NEW, "--data", "imagenette2000"], "'imagenette2000'"),
    "noise name": ([*NEW, "--noise", "rain:3"], "'rain:3'"),
    "noise too weak": ([*NEW, "--noise", "gaussian:0"], "gaussian:0"),
    "noise too strong": ([*NEW, "--noise", "gaussian:300"], "gaussian:300"),
    "noise of a sum": ([*NEW, "--noise", "gaussian:25+jpeg:0"], "in 'jpeg:0': the quality must be"),
    "noise of one strength": ([*NEW, "--noise", "correlated:25"], "give two strengths"),
    "noise turned round": ([*NEW, "--noise", "gaussian:50-10"], "gaussian:50-10"),
    "objective": ([*NEW, "--objectives", "psnr,beauty"], "'beauty'"),
    "objective twice": ([*NEW, "--objectives", "psnr,psnr"], "'psnr' is named twice"),
    "trials": (["search", "--trials", "0"], "--trials is 0"),
    "epochs": ([*NEW, "--epochs", "0"], "--epochs is 0"),
    "max params": ([*NEW, "--max-params", "0"], "--max-params is 0"),
    "sampler": ([*NEW, "--sampler", "oracle"], "'oracle'"),
    "within rank": ([*NEW, "--within-rank", "crowding"], "'crowding'"),
    "precision": ([*NEW, "--precision", "fp16"], "'fp16'"),
    "no cpus": ([*NEW, "--cpus-per-trial", "0"], "--cpus-per-trial is 0"),
    "more gpus than there are": ([*NEW, "--gpus-per-trial", "64"], "64 GPU"),
    "concurrency": ([*NEW, "--concurrency", "0"], "--concurrency is 0"),
    "time limit": ([*NEW, "--time-limit", "soon"], "'soon'"),
    "seed": ([*NEW, "--seed", "-1"], "--seed is -1"),
    "subset too large": (["search", "--study", "new", "--subset", "1000000"], "1000000"),
    "study name": ([*NEW[:1], "--study", "../up", *NEW[3:]], "'../up'"),
    "cluster": ([*NEW, "--address", "127.0.0.1:1"], "127.0.0.1:1"),
    "folder missing": ([*NEW, "--data", "folder:nowhere"], "nowhere"),
    "folder empty": ([*NEW, "--data", "folder:empty"], "empty"),
    "one class": ([*NEW[:-2], "--data", "folder:one-class"], "one-class"),
    "corrupt image": ([*NEW[:-2], "--data", "folder:corrupt"], "3.png"),
    "images of nothing": ([*NEW[:-2], "--data", "images:empty"], "empty"),
    "image for a folder": ([*NEW, "--data", "folder:text.db"], "text.db"),
    "storage dialect": ([*NEW, "--storage", "oracledb9://x"], "oracledb9"),
    "storage not a database": ([*NEW, "--storage", "text.db"], "text.db"),
    "storage of a newer version": ([*NEW, "--storage", "newer.db"], "schema 999"),
    "storage in no folder": ([*NEW, "--storage", "sqlite:///nowhere/x.db"], "nowhere"),
    "storage unwritable": ([*NEW, "--storage", "sqlite:////proc/x.db"], "/proc/x.db"),
    "nothing stored": (["studies", "list", "--storage", "absent.db"], "absent.db"),
    "study": (["best", "large"], "no study 'large'"),
    "pick": (["best", "small", "--pick", "prettiest"], "'prettiest'"),
    "pick off the front": (["best", "small", "--pick", "99"], "trial 99 is not on the front"),
    "prefer": (["best", "small", "--prefer", "psnr"], "'psnr' is not NAME=WEIGHT"),
    "prefer what": (["best", "small", "--prefer", "size=2"], "'size'"),
    "nothing fits": (["best", "small", "--max-macs", "1"], "keeps --max-macs 1; the smallest is trial"),
    "limit": (["best", "small", "--max-latency", "0"], "--max-latency is 0"),
    "off the front that fits": (
        ["best", "small", "--max-macs", "400000", "--pick", "99"],
        "at most 400,000 MACs;",
    ),
    "show two trials": (["studies", "show", "small", "--trial", "1", "--pick", "knee"], "--trial 1 names a trial"),
    "show what fits": (["studies", "show", "small", "--max-params", "1"], "keeps --max-params 1"),
    "confirm what fits": (["confirm", "small", "--max-params", "1"], "keeps --max-params 1"),
    "export what fits": (["export", "small", "--max-params", "1", "--to", "out"], "keeps --max-params 1"),
    "train what fits": (["train", "small", "--max-params", "1", "--to", "out"], "keeps --max-params 1"),
    "train a reference that fits": (
        ["train", "unet", "--max-macs", "9", "--to", "out"],
        "--max-macs is for the choice from a study, and unet is a network of the papers",
    ),
    "train a file by preference": (
        ["train", "spec.json", "--prefer", "psnr=2", "--to", "out"],
        "--prefer is for the choice from a study, and spec.json is the file of a spec",
    ),
    "other noise": ([*SEARCH, "--noise", "gaussian:25"], "noise: study has gaussian:50, asked for gaussian:25"),
    "other data": (["search", "--study", "small", "--subset", "12", "--data", "folder:good"], "data: study has digits"),
    "other epochs": (["search", "--study", "small", "--epochs", "9"], "epochs: study has 2, asked for 9"),
    "other objectives": (["search", "--study", "small", "--objectives", "psnr"], "objectives"),
    "confirm what": (["confirm", "large"], "no study 'large'"),
    "confirm under one seed": (["confirm", "small", "--seeds", "1"], "--seeds is 1"),
    "confirm under too many": (["confirm", "small", "--seeds", "1001"], "--seeds is 1001"),
    "confirm fewer than the knee": (["confirm", "small", "--top", "-1"], "--top is -1"),
    "confirm without cpus": (["confirm", "small", "--cpus-per-trial", "0"], "--cpus-per-trial is 0"),
    "confirm for how long": (["confirm", "small", "--time-limit", "soon"], "'soon'"),
    "confirm on no cluster": (["confirm", "small", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
    "export nothing known": (["export", "large", "--to", "out"], "'large' is neither the folder of a bundle nor"),
    "export a runtime without a page": (
        ["export", "small", "--web-runtime", "good", "--to", "out"],
        "--web-runtime good is for a page; give --web too",
    ),
    "export over something": (["export", "small", "--to", "good"], "good"),
    "export nowhere": (["export", "small", "--to", "text.db/bundle"], "text.db/bundle"),
    "report of nothing": (["report", "large"], "no study 'large'"),
    "report nowhere": (["report", "small", "--to", "nowhere/x.html"], "nowhere"),
    "report onto a folder": (["report", "small", "--to", "good"], "good"),
    "two outputs": (["report", "small", "--to", "x.html", "--figures", "y"], "--to and --figures"),
    "figure format": (["report", "small", "--figures", "y", "--format", "gif"], "'gif'"),
    "trial": (["studies", "show", "small", "--trial", "99"], "trial 99"),
    "csv nowhere": (["studies", "to-csv", "small", "nowhere/x.csv"], "nowhere/x.csv"),
    "no bundle": (["evaluate", "empty"], "empty"),
    "bundle truncated": (["evaluate", "truncated"], "weights.safetensors"),
    "bundle of a newer version": (["evaluate", "newer-bundle"], "999"),
    "bundle of changed files": (["show", "bad-onnx"], "bad-onnx/model.onnx: is not the file that was exported"),
    "bundle without weights": (["evaluate", "no-weights"], "weights.safetensors"),
    "train nothing known": (["train", "vgg", "--to", "out"], "'vgg'"),
    "train no spec": (["train", "absent.json", "--to", "out"], "absent.json"),
    "train no JSON": (["train", "text.json", "--to", "out"], "text.json"),
    "train wrong spec": (["train", "spec.json", "--to", "out"], "levels is 99"),
    "train wrong recipe": (
        ["train", "recipe.json", "--to", "out"],
        "recipe: learning_rate is inf, must be a finite number",
    ),
    "train pick": (["train", "small:99", "--to", "out"], "trial 99 is not on the front"),
    "train study": (["train", "large:knee", "--to", "out"], "'large"),
    "train over something": (["train", "unet", "--subset", "60", "--to", "good"], "good"),
    "train nowhere": (["train", "unet", "--subset", "60", "--to", "text.db/out"], "text.db/out"),
    "train data": (["train", "unet", "--data", "images:empty", "--to", "out"], "empty"),
    "train noise": (["train", "unet", "--noise", "rain:3", "--to", "out"], "'rain:3'"),
    "train epochs": (["train", "unet", "--epochs", "0", "--to", "out"], "--epochs is 0"),
    "train subset": (["train", "unet", "--subset", "1", "--to", "out"], "subset 1"),
    "train batch size": (["train", "unet", "--batch-size", "0", "--to", "out"], "--batch-size is 0"),
    "train learning rate": (["train", "unet", "--learning-rate", "0", "--to", "out"], "--learning-rate is 0"),
    "train learning rate nan": (["train", "unet", "--learning-rate", "nan", "--to", "out"], "--learning-rate is 'nan'"),
    "train weight decay": (["train", "unet", "--weight-decay", "-1", "--to", "out"], "--weight-decay is -1"),
    "train warm-up": (["train", "unet", "--warmup", "1.5", "--to", "out"], "--warmup is 1.5"),
    "train average": (["train", "unet", "--ema", "1", "--to", "out"], "--ema is 1"),
    "train turned digits": (["train", "unet", "--augment", "--to", "out"], "digits"),
    "train patches of digits": (["train", "unet", "--patch", "8", "--to", "out"], "--patch 8"),
    "train patch": (["train", "unet", "--data", "images:good", "--patch", "4", "--to", "out"], "--patch is 4"),
    "train patch too large": (["train", "unet", "--data", "images:good", "--patch", "99", "--to", "out"], "99"),
    "train patches": (["train", "unet", "--patches-per-epoch", "0", "--to", "out"], "--patches-per-epoch is 0"),
    "train accumulate": (["train", "unet", "--accumulate", "0", "--to", "out"], "--accumulate is 0"),
    "train precision": (["train", "unet", "--precision", "fp8", "--to", "out"], "'fp8'"),
    "train threads": (["train", "unet", "--threads", "0", "--to", "out"], "--threads is 0"),
    "train seed": (["train", "unet", "--seed", "-1", "--to", "out"], "--seed is -1"),
    "train log folder": (["train", "unet", "--subset", "60", "--log-dir", "text.db/x", "--to", "out"], "text.db/x"),
    "denoise by nothing": (["denoise", "empty", "one.png", "--to", "out"], "empty"),
    "denoise nothing": (["denoise", "sound", "absent.png", "--to", "out"], "absent.png"),
    "denoise an empty folder": (["denoise", "sound", "empty", "--to", "out"], "empty"),
    "denoise two of a name": (["denoise", "sound", "good/cat/1.png", "good/dog/1.png", "--to", "out"], "1.png"),
    "denoise into a file": (["denoise", "sound", "good/cat/1.png", "--to", "text.db"], "text.db"),
    "denoise into a file's folder": (["denoise", "sound", "good/cat/1.png", "--to", "text.db/out"], "text.db/out"),
    "denoise onto itself": (["denoise", "sound", "good/cat/1.png", "--to", "good/cat"], "1.png"),
    "denoise tiles": (["denoise", "sound", "good/cat/1.png", "--to", "out", "--tile", "3"], "--tile is 3"),
    "denoise a broken image": (["denoise", "sound", "corrupt/cat/3.png", "--to", "out"], "3.png"),
    "denoise without ONNX": (["denoise", "no-onnx", "good/cat/1.png", "--to", "out", "--onnx"], "model.onnx"),
    "denoise with broken ONNX": (["denoise", "bad-onnx", "good/cat/1.png", "--to", "out", "--onnx"], "model.onnx"),
    "split": (["evaluate", "truncated", "--split", "train"], "'train'"),
    "reference": (["evaluate", "truncated", "--reference", "magic"], "'magic'"),
    "one noise of several": (["evaluate", "truncated", "--noise", "gaussian:25,rain:3"], "'rain:3'"),
    "spaces": (["spaces", "vnet"], "'vnet'"),
    "port out of range": (["dashboard", "--port", "70000"], "70000"),
}


def tree(folder: Path) -> set[tuple[str, int]]:
    """Every file with its size, but for what SQLite keeps beside an open database."""
    return {
        (path.relative_to(folder).as_posix(), path.stat().st_size if path.is_file() else 0)
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_2_and_nothing_changed(wrong: Path, run: Run, case: str) -> None:
    arguments, names = CASES[case]
    before = tree(wrong)
    said = run(*arguments)
    lines = said.err.strip().splitlines()
    assert said.code == 2, said
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert names in lines[0]
    assert len(lines[0]) > len("error: ") + len(names), "more than the value: a rule or a fix"
    assert said.out == ""
    assert tree(wrong) == before
    with open_storage(f"sqlite:///{wrong}/runs/studies.db") as storage:
        assert [(s.name, s.counts.proposals) for s in list_studies(storage)] == [("small", 4)]


FIRST = {
    case: CASES[case] for case in ("objective", "objective twice", "study name", "folder missing", "one class")
} | {
    "subset": ([*NEW[:-1], "1000000"], "1000000"),
    "precision": CASES["precision"],
    "no objective": ([*NEW, "--noise", "none", "--objectives", "psnr"], "no objective is left"),
    "warm start": ([*NEW, "--warm-start", "gone"], "no studies yet in sqlite:///runs/studies.db"),
}


@pytest.mark.parametrize("case", FIRST)
def test_a_first_search_that_is_refused_leaves_no_database(
    tmp_path: Path, run: Run, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, names = FIRST[case]
    said = run(*arguments)
    assert said.code == 2, said
    assert names in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(wrong: Path, run: Run) -> None:
    port = (wrong / "port").read_text()
    said = run("dashboard", "--port", port)
    assert said.code == 2
    assert said.err.startswith(f"error: --port {port} on 127.0.0.1: Address already in use; choose another port")


def test_a_password_is_never_shown(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("studies", "list", "--storage", "postgresql://someone:hunter2@127.0.0.1:1/none")
    assert said.code == 2
    assert len(said.err.strip().splitlines()) == 1
    assert "hunter2" not in said.err + said.out
