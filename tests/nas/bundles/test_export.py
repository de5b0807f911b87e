"""Export: programs that compute what the network does, everywhere, in a folder that is complete or absent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundle_samples import CLASSES, FACTS, SPACE, TASK, candidate, digits, network_of, noisy_digits, write_bundle
from safetensors import safe_open
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn
from torch.export import Dim

from nas.bundles import export, onnx_export, onnx_model
from nas.bundles.assess import assess
from nas.bundles.bundle import open_bundle
from nas.bundles.card import card
from nas.bundles.conversion import Gain, convert, measure
from nas.bundles.files import ARCHITECTURE, CARD, PARITY, SUMS, WEIGHTS
from nas.bundles.formats import CONVERSIONS, FORMATS, INT8, ONNX, Exportable, Further, integer_pixels, integer_top
from nas.bundles.int8 import quantize
from nas.bundles.onnx_model import open_onnx
from nas.data.noise import parse_noise
from nas.errors import BundleError
from nas.training.batches import noisy_batches
from nas.training.evaluation import judge
from search_spaces import get_space
from studies.commands.bundle_lines import bundle_facts, bundle_lines

PROGRAM = FORMATS["torch_export"].file
FILES = {ARCHITECTURE, CARD, ONNX, PARITY, PROGRAM, SUMS, WEIGHTS}
SIZES = [(2, 11, 19), (1, 8, 8), (5, 24, 40), (3, 31, 13)]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(standard: Path) -> Path:
    return standard


def onnx_outputs(folder: Path, noisy: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    outputs = [torch.from_numpy(out) for out in session.run(None, {"noisy": noisy.numpy()})]
    return outputs if len(outputs) == 2 else [*outputs, torch.zeros(len(noisy), 0)]


def check_programs(folder: Path, network: nn.Module, channels: int = 1) -> None:
    program = torch.export.load(folder / PROGRAM).module()
    network = network.eval()
    for batch, height, width in SIZES:
        noisy = torch.rand(batch, channels, height, width)
        with torch.no_grad():
            wanted = network(noisy)
            for found in (program(noisy), onnx_outputs(folder, noisy)):
                assert wanted[0].shape == noisy.shape
                torch.testing.assert_close(tuple(found), wanted, rtol=0, atol=1e-4)


def test_a_bundle_holds_its_files_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_programs_agree_with_pytorch_at_other_sizes_and_batches(folder: Path, network: nn.Module) -> None:
    check_programs(folder, network)


def test_what_is_measured_of_classes_is_scikit_learns_in_every_program(folder: Path) -> None:
    split = digits(200)
    batches = list(noisy_batches(split, parse_noise("gaussian:50"), torch.device("cpu"), seed=3, draws=2))
    labels = torch.cat([batch[2] for batch in batches if batch[2] is not None])

    def session(noisy: Tensor) -> tuple[Tensor, Tensor]:
        denoised, logits = onnx_outputs(folder, noisy)
        return denoised, logits

    bundle = open_bundle(folder, get_space)
    searched = judge(bundle.network, batches).values
    for predict in (bundle.network, open_onnx(folder / ONNX, classes=10), session):
        found = assess(predict, split, parse_noise("gaussian:50"), seed=3, draws=2).values
        with torch.inference_mode():
            logits = torch.cat([predict(batch[0])[1] for batch in batches])
        answers, chances = logits.argmax(1), logits.double().softmax(1)
        wanted = {
            "accuracy": 100 * accuracy_score(labels, answers),
            "balanced_accuracy": 100 * balanced_accuracy_score(labels, answers),
            "macro_f1": f1_score(labels, answers, average="macro"),
            "auc": roc_auc_score(labels, chances, multi_class="ovr"),
        }
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
        if predict is bundle.network:
            assert {name: searched[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)


def test_parity_is_measured_on_the_images_and_on_sizes_of_both_kinds(folder: Path) -> None:
    parity = json.loads((folder / PARITY).read_text())
    assert parity["holds"] is True
    assert parity["limit"] == 1e-4
    assert parity["sizes"] == [[6, 1, 8, 8], [1, 1, 17, 23], [3, 1, 29, 35], [2, 1, 32, 48]]
    assert set(parity["differences"]) == {"onnx", "torch_export"}
    assert all(0 <= v <= 1e-4 for found in parity["differences"].values() for v in found.values())


def test_onnx_names_its_inputs_outputs_and_free_sizes(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    image = ["batch", 1, "height", "width"]
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("noisy", image)]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("denoised", image), ("logits", ["batch", 10])]


def test_architecture_says_what_is_inside(folder: Path) -> None:
    value = json.loads((folder / ARCHITECTURE).read_text())
    one = candidate()
    assert value["spec"] == one.spec.to_dict()
    assert value["recipe"] == one.recipe.to_dict()
    assert value["digest"] == one.digest
    assert value["space"] == {"name": "unet", "version": SPACE.version}
    assert value["facts"] == FACTS
    assert value["classes"] == list(CLASSES)


def test_no_file_names_a_path_of_this_machine(folder: Path, tmp_path: Path, network: nn.Module, quick: None) -> None:
    facts = FACTS | {"data": f"folder:{tmp_path}/pictures"}
    write_bundle(tmp_path / "bundle", candidate(), network, facts=facts)
    places = {str(ROOT), str(tmp_path), str(folder), str(Path.home()), sysconfig.get_path("purelib"), sys.prefix}
    for file in (*folder.iterdir(), *(tmp_path / "bundle").iterdir()):
        contents = [file.read_bytes()]
        if file.name == PROGRAM:
            with zipfile.ZipFile(file) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for place in places - {"/"}:
            assert not any(place.encode() in content for content in contents), (file.name, place)
    assert "folder:pictures" in (tmp_path / "bundle" / CARD).read_text()
    assert not any(node.metadata_props for node in onnx.load(folder / ONNX).graph.node)


def test_the_card_holds_the_numbers_and_their_split(folder: Path) -> None:
    text = (folder / CARD).read_text()
    cost = SPACE.cost(candidate().spec, TASK)
    wanted = ["| 20.12 |", "| 14.61 |", "| 97.53 |", "0.876", "0.432 ms", f"{cost.params:,}", f"{cost.macs:,}"]
    wanted += [
        "validation split",
        "gaussian:50",
        "1077 train",
        "Abacus 3000",
        "digits-gaussian-50",
        "trial: 17",
        "4711",
        "class: of an image turned as it is to be seen, cut at the centre and averaged to 8x8 pixels",
    ]
    wanted += ["learning_rate 0.001", "levels 2", torch.__version__.split("+")[0], *FILES - {CARD}]
    assert [piece for piece in wanted if piece not in text] == []


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("gaussian:50", "`gaussian:50`, added to values from 0 to 1 and not clipped\n"),
        ("rows:5+depth:8", "`rows:5+depth:8`, added to values from 0 to 1\n"),
    ],
)
def test_the_card_says_whether_the_noise_is_clipped(folder: Path, noise: str, said: str) -> None:
    architecture = json.loads((folder / "architecture.json").read_text())
    architecture["task"]["noise"] = noise
    assert f"noise: {said}" in card(architecture, json.loads((folder / "parity.json").read_text()), FORMATS)


@pytest.mark.parametrize(("index", "absent"), [(0, "torch"), (1, "onnxruntime")])
def test_the_examples_of_the_card_run_without_skipnas(folder: Path, index: int, absent: str) -> None:
    example = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)[index]
    assert len(example.splitlines()) <= 10
    strangers = f"import sys\nassert not {{'nas', 'search_spaces', {absent!r}}} & set(sys.modules)"
    command = [sys.executable, "-I", "-W", "error", "-c", f"{example}\n{strangers}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "(1, 1, 8, 8)" in done.stdout or "1, 1, 8, 8" in done.stdout


def test_a_network_without_classes_has_one_output_everywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = replace(TASK, classes=0)
    one, folder = candidate(), tmp_path / "bundle"
    network = network_of(one, task)
    parity = write_bundle(folder, one, network, task, further=Further(size=[(8, 8)], integer_io=True))
    assert capfd.readouterr() == ("", "")
    assert parity["differences"]["onnx"]["logits"] == 0
    check_programs(folder, network)
    assert open_bundle(folder, get_space).classes == ()
    assert "knows no classes" in (folder / CARD).read_text()
    for file in folder.glob("*.onnx"):
        model = onnx.load(file)
        assert [value.name for value in model.graph.output] == ["denoised"], file.name
        assert "ConstantOfShape" not in {node.op_type for node in model.graph.node}
    denoised, logits = open_onnx(folder / ONNX, classes=0)(torch.rand(2, 1, 9, 8))
    assert (denoised.shape, logits.shape) == ((2, 1, 9, 8), (2, 0))
    files = (folder / CARD).read_text().partition("## Files")[2].partition("## Use")[0]
    assert "and its like: `noisy` to `denoised`, any batch and size" in files
    assert "logits" not in files


def test_the_network_given_is_left_as_it_was(tmp_path: Path, network: nn.Module, quick: None) -> None:
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.random.get_rng_state()
    write_bundle(tmp_path / "bundle", candidate(), network)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_nothing_has_to_be_known_of_a_network(tmp_path: Path, network: nn.Module, quick: None) -> None:
    write_bundle(tmp_path, candidate(), network, facts={})
    text = (tmp_path / CARD).read_text()
    assert "None" not in text
    assert open_bundle(tmp_path, get_space).facts == {}


def test_a_bundle_scores_as_its_network_does(folder: Path, network: nn.Module) -> None:
    network.eval()
    split, noise = digits(200), parse_noise(TASK.noise)
    wanted = assess(network, split, noise, seed=1)
    opened = open_bundle(folder, get_space).network
    for predict in (opened, lambda noisy: tuple(onnx_outputs(folder, noisy))):
        found = assess(predict, split, noise, seed=1)
        assert found.values["psnr"] == pytest.approx(wanted.values["psnr"], abs=0.01)
        assert found.values["accuracy"] == pytest.approx(wanted.values["accuracy"], abs=0.1)


def test_an_empty_folder_is_filled(tmp_path: Path, network: nn.Module, quick: None) -> None:
    write_bundle(tmp_path, candidate(), network)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def one_line(raised: pytest.ExceptionInfo[BundleError]) -> str:
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_taken_target_is_refused_and_untouched(tmp_path: Path, network: nn.Module) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(BundleError) as raised:
            write_bundle(target, candidate(), network)
        assert "not an empty folder; give a new one" in one_line(raised)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, network: nn.Module) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError) as raised:
        write_bundle(tmp_path / "file" / "bundle", candidate(), network)
    assert "cannot be written" in one_line(raised)


def test_nothing_is_left_when_programs_differ_too_much(
    tmp_path: Path, network: nn.Module, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "open_onnx", lambda file, **_: lambda noisy: (noisy, torch.zeros(len(noisy), 10)))
    with pytest.raises(BundleError) as raised:
        write_bundle(tmp_path / "bundle", candidate(), network)
    assert "at most 0.0001 is allowed" in one_line(raised)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_network_has_no_finite_outputs(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = candidate()
    network = network_of(one)
    with torch.no_grad():
        network.get_parameter("output.weight").fill_(3e38)
    with pytest.raises(BundleError, match=r"^model.onnx differs from PyTorch by .* in denoised"):
        write_bundle(tmp_path / "bundle", one, network)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("_program", RuntimeError("a bug")),
        ("write_onnx", RuntimeError("a bug")),
        ("_parity", KeyboardInterrupt()),
        ("_parity", RuntimeError("a bug")),
        ("_parity", OSError(28, "No space left on device")),
        ("card", OSError(28, "No space left on device")),
    ],
)
def test_nothing_is_left_when_a_step_fails(
    tmp_path: Path, network: nn.Module, quick: None, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(onnx_export if step == "write_onnx" else export, step, fail)
    with pytest.raises(BundleError if isinstance(error, OSError) else type(error)):
        write_bundle(tmp_path / "bundle", candidate(), network)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 1},
        {"levels": 4, "resampling": "strided", "norm": "group", "fusion": "concat", "gate": "channel"},
        {"levels": 5, "resampling": "average", "block": "residual", "head_hidden": 2, "head_dropout": 0.5},
        {"levels": 3, "resampling": "none", "fusion": "none", "norm": "none", "kernel": 5},
        {"levels": 3, "growth": "constant", "head_attach": "decoder", "head_hidden": 1},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_programs_of_other_networks(tmp_path: Path, changes: dict[str, Any]) -> None:
    task = replace(TASK, channels=3, height=33, width=38)
    one = candidate(**changes)
    network = network_of(one, task)
    write_bundle(tmp_path / "bundle", one, network, task, images=torch.rand(2, 3, 33, 38))
    program = torch.export.load(tmp_path / "bundle" / PROGRAM).module()
    noisy = torch.rand(2, 3, 41, 64)
    with torch.no_grad():
        torch.testing.assert_close(tuple(program(noisy)), network.eval()(noisy), rtol=0, atol=1e-4)
        torch.testing.assert_close(tuple(onnx_outputs(tmp_path / "bundle", noisy)), network(noisy), rtol=0, atol=1e-4)


def test_the_card_holds_what_was_measured_confirmed_and_allowed(
    tmp_path: Path, network: nn.Module, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval = {"mean": 21.5, "sd": 0.25, "low": 21.19, "high": 21.81, "n": 5}
    facts = FACTS | {
        "licence": "CC-BY-4.0",
        "confirmed": {"seeds": [11, 12, 13, 14, 15], "values": {"psnr": interval, "test_psnr": interval}},
    }
    split, calls = digits(40), []

    def judge(predict: Any) -> dict[str, Any]:
        calls.append(predict)
        found = assess(predict, split, parse_noise("gaussian:50"), seed=1)
        return {"test": dict(found.values)}

    folder = tmp_path / "bundle"
    monkeypatch.setattr(export, "convert", lambda *given: replace(convert(*given), float_bytes=10**9))
    given = {"calibration": noisy_digits(32), "further": Further(quantize=True)}
    write_bundle(folder, candidate(), network, facts=facts, judge=judge, **given)
    assert {path.name for path in folder.iterdir()} == FILES | {INT8}
    text = (folder / CARD).read_text()
    whole, int8 = judge(network.eval())["test"], judge(open_onnx(folder / INT8))["test"]
    assert abs(int8["psnr"] - whole["psnr"]) < 1
    wanted = [
        f"| {whole['psnr']:.2f} |",
        f"{int8['psnr']:.2f} ({int8['psnr'] - whole['psnr']:+.2f})",
        "Measured on the test split",
        "Confirmed under 5 seeds",
        "| 21.50 | 21.19 to 21.81 | 0.25 |",
        "Seeds: 11, 12, 13, 14, 15.",
        "CC-BY-4.0",
        "32 noisy training images",
        "model.int8.onnx is smaller",
        "model.int8.onnx",
    ]
    assert [piece for piece in wanted if piece not in text] == []
    value = json.loads((folder / ARCHITECTURE).read_text())["facts"]
    assert value["measured"]["test"] == pytest.approx(whole, abs=1e-3)
    assert value["int8"]["measured"]["test"] == pytest.approx(int8)
    assert value["int8"]["bytes"] == (folder / INT8).stat().st_size, "what it says of itself counts"
    assert f"{value['int8']['bytes']:,} bytes beside" in text
    assert onnx.load(folder / INT8).producer_name == onnx.load(folder / ONNX).producer_name == "skipnas"
    said = {each.key: each.value for each in onnx.load(folder / INT8).metadata_props}
    assert said["precision"] == "int8"
    assert json.loads(said["measured"])["test"] == pytest.approx(int8)
    assert said["digest"] == candidate().digest
    assert open_bundle(folder, get_space).facts == value


GAIN = Gain(bytes=900, float_bytes=1000, milliseconds=2.0, float_milliseconds=1.0, size=(8, 16), threads=1)


def test_an_int8_program_that_does_not_pay_is_left_out(
    tmp_path: Path, network: nn.Module, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "convert", lambda *given: replace(GAIN, bytes=convert(*given).bytes, float_bytes=1))
    folder = tmp_path / "bundle"
    judged: list[Any] = []
    given = {"calibration": noisy_digits(4), "further": Further(quantize=True)}
    write_bundle(folder, candidate(), network, judge=lambda run: judged.append(run) or {}, **given)
    assert len(judged) == 1  # the network alone
    assert {path.name for path in folder.iterdir()} == FILES
    text = (folder / CARD).read_text()
    assert "model.int8.onnx is left out: it would be neither smaller nor faster: " in text
    assert "`model.int8.onnx`" not in text
    assert json.loads((folder / ARCHITECTURE).read_text())["facts"]["int8"]["pays"] is False


def test_weights_of_fewer_bits_are_written_beside_the_program_and_told(
    tmp_path: Path, network: nn.Module, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, folder = digits(40), tmp_path / "bundle"

    def judge(predict: Any) -> dict[str, Any]:
        return {"test": dict(assess(predict, split, parse_noise("gaussian:50"), seed=1).values)}

    monkeypatch.setattr(export, "convert", lambda *given: replace(convert(*given), float_bytes=10**9))
    further = Further(float16_weights=True, int8_weights=True)
    write_bundle(folder, candidate(), network, judge=judge, further=further)
    files = {name: CONVERSIONS[name].file for name in ("float16_weights", "int8_weights")}
    assert {path.name for path in folder.iterdir()} == FILES | {*files.values()}
    text, facts = (folder / CARD).read_text(), open_bundle(folder, get_space).facts
    noisy = noisy_digits(16)
    for (name, file), most in zip(files.items(), (1e-3, 0.05), strict=True):
        run = open_onnx(folder / file)
        with torch.no_grad():
            differences = [(a - b).abs().max() for a, b in zip(run(noisy), network.eval()(noisy), strict=True)]
        assert 0 < differences[0] < most
        assert 0 < facts[name]["difference"] < most
        title = CONVERSIONS[name].title
        assert {each.key: each.value for each in onnx.load(folder / file).metadata_props}["precision"] == title
        judged = judge(run)["test"]
        assert facts[name]["measured"]["test"] == pytest.approx(judged)
        assert f"## {title}\n{file} is smaller" in text
        assert f"`{file}`: model.onnx with {title}: less exact" in text
        assert f"{judged['psnr']:.2f} ({judged['psnr'] - facts['measured']['test']['psnr']:+.2f})" in text


@pytest.mark.parametrize(
    ("changes", "pays", "words"),
    [
        ({}, True, "smaller but not faster"),
        ({"bytes": 960}, False, "neither smaller nor faster"),
        ({"bytes": 2000, "milliseconds": 0.95}, True, "faster but not smaller"),
        ({"bytes": 2000, "milliseconds": 0.96}, False, "neither smaller nor faster"),
        ({"milliseconds": 0.5}, True, "smaller and faster"),
    ],
)
def test_a_conversion_pays_by_a_twentieth(changes: dict[str, Any], pays: bool, words: str) -> None:
    gain = replace(GAIN, **changes)
    assert gain.pays is pays
    assert gain.text().startswith(f"{words}: {gain.bytes:,} bytes beside 1,000, ")
    assert gain.text().endswith(" ms beside 1 for an image of 8x16 with 1 thread(s)")


def test_programs_are_timed_in_turn(folder: Path) -> None:
    ticks = iter(range(10_000))
    gain = measure(folder / ONNX, folder / ONNX, torch.rand(1, 1, 8, 8), clock=lambda: float(next(ticks)))
    assert (gain.milliseconds, gain.float_milliseconds, gain.size) == (1000.0, 1000.0, (8, 8))
    assert gain.bytes == gain.float_bytes == (folder / ONNX).stat().st_size
    assert next(ticks) < 20  # it does not go on for long where runs are slow


def test_an_int8_program_takes_other_sizes_and_batches(tmp_path: Path, network: nn.Module, folder: Path) -> None:
    model = quantize(onnx.load(folder / ONNX), noisy_digits(32))
    file = tmp_path / INT8
    file.write_bytes(model.SerializeToString())
    assert {tensor.data_type for tensor in model.graph.initializer} >= {onnx.TensorProto.INT8}
    run = open_onnx(file)
    for batch, height, width in SIZES:
        noisy = torch.rand(batch, 1, height, width)
        denoised, logits = run(noisy)
        assert denoised.shape == noisy.shape
        assert logits.shape == (batch, 10)
        with torch.no_grad():
            assert (denoised - network.eval()(noisy)[0]).abs().mean() < 0.1


def test_onnx_programs_are_of_versions_that_old_runtimes_read(folder: Path) -> None:
    model = onnx.load(folder / ONNX)
    assert (model.ir_version, [each.version for each in model.opset_import]) == (9, [20])


def test_each_file_says_what_it_is(tmp_path: Path, network: nn.Module, quick: None) -> None:
    interval = {"mean": 21.5, "sd": 0.25, "low": 21.19, "high": 21.81, "n": 5}
    facts = FACTS | {"licence": "CC-BY-4.0", "confirmed": {"seeds": [1, 2], "values": {"psnr": interval}}}
    folder = tmp_path / "bundle"
    write_bundle(folder, candidate(), network, facts=facts, white_level=4095)
    said = open_bundle(folder, get_space).description
    wanted = {
        "digest": candidate().digest,
        "licence": "CC-BY-4.0",
        "layout": "NCHW",
        "colours": "gray",
        "range": "0 to 1",
        "white_level": 4095,
        "noise": "gaussian:50",
        "trained_size": "8x8",
        "padded_to": 2,
        "classes": list(CLASSES),
        "measured": {"validation": FACTS["values"]},
        "confirmed": {"psnr": {"mean": 21.5, "low": 21.19, "high": 21.81, "n": 5}},
        "torch": torch.__version__.partition("+")[0],
    }
    assert {name: said[name] for name in wanted} == wanted
    assert "divided by 4095" in said["noisy"]
    assert "not clipped" in said["denoised"]
    model = onnx.load(folder / ONNX)
    texts = {each.key: each.value for each in model.metadata_props}
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        assert json.loads(weights.metadata()["skipnas"]) == texts
    assert texts.keys() == said.keys()
    assert {name: text if isinstance(said[name], str) else json.loads(text) for name, text in texts.items()} == said
    for value in (*model.graph.input, *model.graph.output):
        assert value.doc_string == said[value.name]


def test_facts_of_a_stranger_are_described_as_far_as_they_are_figures(folder: Path) -> None:
    bundle = open_bundle(folder, get_space)
    strange: dict[str, Any] = {
        "measured": {"test": {"psnr": "high", "ssim": float("nan"), "accuracy": 90, "luck": 1}, "x": 7},
        "confirmed": {"values": {"psnr": {"mean": 1.0}, "ssim": [1], "accuracy": None}},
        "trial": [1],
        "data": {"a": 1},
    }
    said = replace(bundle, facts=strange).description
    assert said["measured"] == {"test": {"accuracy": 90}, "x": {}}
    assert not {"confirmed", "trial", "data"} & said.keys()
    assert replace(bundle, facts={"measured": 3, "confirmed": []}).description["licence"] == "not stated"


def test_what_the_search_alone_measures_is_shown_with_its_number(folder: Path) -> None:
    of = "on an image of 8x8, in ONNX Runtime (cpu)"
    bundle = replace(open_bundle(folder, get_space), facts=FACTS | {"measured": {"test": {}}, "latency_of": of})
    assert bundle.description["searched"] == {"stability": 0.8761, "latency": 0.4321}
    lines = [re.split("  +", line) for line in bundle_lines(bundle_facts(bundle))]
    assert ["training stability", "0.876"] in lines
    assert ["latency", "0.432 ms"] in lines
    assert ["time measured", of] in lines
    assert "searched" not in open_bundle(folder, get_space).description, "there they are among the figures of the split"


def test_means_over_seeds_are_told_with_the_split_that_they_are_of(folder: Path) -> None:
    interval = {"mean": 0.5, "sd": 0.1, "low": 0.25, "high": 0.75, "n": 3}
    confirmed = {"seeds": [1, 2, 3], "values": dict.fromkeys(("ssim", "test_ssim", "stability"), interval)}
    bundle = replace(open_bundle(folder, get_space), facts=FACTS | {"confirmed": confirmed})
    lines = dict(re.split("  +", line) for line in bundle_lines(bundle_facts(bundle)))
    assert lines["SSIM on validation"] == lines["SSIM on test"] == "0.5000, 0.2500 to 0.7500 (95 %, 3 seeds)"
    assert lines["training stability"] == "0.500, 0.250 to 0.750 (95 %, 3 seeds)"


def test_a_program_for_one_size_has_none_of_what_small_runtimes_lack(
    tmp_path: Path, network: nn.Module, quick: None
) -> None:
    folder = tmp_path / "bundle"
    parity = write_bundle(folder, candidate(), network, further=Further(size=[(8, 8), (9, 14)]))
    for height, width in ((8, 8), (9, 14)):
        file = folder / f"model.{height}x{width}.onnx"
        model = onnx.load(file)
        assert not {"Pad", "Shape", "Mod", "Gelu"} & {node.op_type for node in model.graph.node}
        assert (model.ir_version, [each.version for each in model.opset_import]) == (8, [17])
        assert max(parity["differences"][f"{height}x{width}"].values()) < 1e-5
        noisy = torch.rand(1, 1, height, width)
        with torch.no_grad():
            found, wanted = open_onnx(file)(noisy), network.eval()(noisy)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    text = (folder / CARD).read_text()
    assert "differences of model.onnx, model.pt2, model.8x8.onnx and model.9x14.onnx to PyTorch" in text
    assert "\n- model.onnx, model.pt2, model.8x8.onnx and model.9x14.onnx differ from PyTorch by at most" in text
    assert "and its like: `noisy` to `denoised` and `logits`, any batch" in text
    assert "`model.9x14.onnx`: for OpenCV, ncnn and other small runtimes: one image of 9x14 pixels" in text
    assert text.count("readNetFromONNX") == 1


@pytest.mark.parametrize(
    ("white_level", "kind", "top"), [(None, "uint8", 255), (255.0, "uint8", 255), (4095.0, "uint16", 4095)]
)
def test_a_program_takes_and_gives_pixels_as_files_have_them(
    tmp_path: Path, network: nn.Module, quick: None, white_level: float | None, kind: str, top: int
) -> None:
    folder = tmp_path / "bundle"
    parity = write_bundle(folder, candidate(), network, white_level=white_level, further=Further(integer_io=True))
    session = onnxruntime.InferenceSession(folder / f"model.{kind}.onnx", providers=["CPUExecutionProvider"])
    pixels = (np.random.default_rng(0).random((3, 1, 11, 18)) * top).astype(kind)
    denoised, probabilities = session.run(["denoised", "probabilities"], {"noisy": pixels})
    with torch.no_grad():
        wanted, logits = network.eval()(torch.from_numpy(pixels.astype("float32") / top))
    assert denoised.dtype == kind
    assert np.abs(denoised.astype(int) - (wanted.clamp(0, 1) * top).round().numpy()).max() <= 1
    assert (denoised == (wanted.clamp(0, 1) * top).round().numpy()).mean() > 0.99
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)
    assert parity["differences"]["integers"]["denoised"] <= 1.001 / top
    assert parity["differences"]["integers"]["logits"] <= 1e-5
    assert f"{kind} from 0 to {top}" in session.get_modelmeta().custom_metadata_map["denoised"]
    described = f"model.onnx with {kind} from 0 to {top} in and out, and with probabilities in place of logits\n"
    assert described in (folder / CARD).read_text()


def test_pixels_of_no_whole_white_level_are_refused(tmp_path: Path, network: nn.Module, quick: None) -> None:
    for white_level in (0.75, 1.0, 200.0, 4095.5, 70000.0):
        with pytest.raises(BundleError, match=r"whole numbers need 255 to 65535; leave it out"):
            write_bundle(
                tmp_path / "bundle", candidate(), network, white_level=white_level, further=Further(integer_io=True)
            )
    assert list(tmp_path.iterdir()) == []


def test_white_is_the_largest_value_of_16_bits_where_images_are_deep_and_nobody_says() -> None:
    assert [integer_top(None, deep=deep) for deep in (False, True)] == [255, 65535]
    assert integer_top(4095.0, deep=True) == 4095
    assert integer_pixels(65535).file == "model.uint16.onnx"
    limits = [integer_pixels(65535).limit_of(output) for output in ("denoised", "logits")]
    assert limits == [pytest.approx(1 / 65535, rel=0.01), 1e-4]


class Named(nn.Module):
    """A network of an own space, with names that a graph of whole numbers might use."""

    def __init__(self) -> None:
        super().__init__()
        self.white, self.zero, self.one = (nn.Parameter(torch.tensor(value)) for value in (2.0, 0.0, 0.25))
        self.skips = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        return self.skips(noisy) * self.white + self.one + self.zero, noisy.new_zeros((noisy.shape[0], 0))


def test_names_of_an_own_network_are_no_names_of_the_graph_around_it(tmp_path: Path) -> None:
    network, task = Named().eval(), replace(TASK, classes=0)
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(dynamic,))
    said = dict.fromkeys(("skipnas", "title", "colours", "noisy", "denoised"), "text")
    format_, made = integer_pixels(255), Exportable(network, program, task, said)
    format_.write(made, tmp_path / format_.file)
    noisy = torch.rand(2, 1, 9, 11)
    with torch.no_grad():
        found, wanted = format_.open(made, tmp_path / format_.file)(noisy), format_.expected(network)(noisy)
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1.001 / 255)


def test_a_size_beyond_all_memory_is_one_line(tmp_path: Path, network: nn.Module, quick: None) -> None:
    with pytest.raises(BundleError, match=r"^`size` 20000x20000: a pass over 400,000,000 pixels needs too much memory"):
        write_bundle(tmp_path / "bundle", candidate(), network, further=Further(size=[(20000, 20000)]))
    assert list(tmp_path.iterdir()) == []
