"""Two hundred strange bundles: each is refused in one line or opens as what it says, and nothing else happens."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from bundle_samples import candidate, digits, network_of, noisy_digits, write_bundle
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load, save

from nas.bundles import onnx_model
from nas.bundles.assess import assess
from nas.bundles.bundle import open_bundle
from nas.bundles.files import ARCHITECTURE, WEIGHTS
from nas.bundles.formats import FORMATS, ONNX
from nas.bundles.onnx_model import open_onnx
from nas.bundles.sums import write_sums
from nas.data.noise import parse_noise
from nas.errors import BundleError
from search_spaces import known_space
from studies.commands.denoise import denoise

CASES = 200
PLANTED = "import pathlib; pathlib.Path('executed').touch()"

PROGRAM = FORMATS["torch_export"].file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("fuzz") / "bundle"
    write_bundle(target, candidate(width=4, levels=1), network_of(candidate(width=4, levels=1)))
    return target


STRANGE = (
    *(None, True, -1, 0, 2**31, 10**30, 0.5, float("nan"), [], [[]], {}, {"name": "unet"}, ["x"] * 1000),
    *("", "../../etc/passwd", "os:system", "\x1b[2J" * 99, "/dev/zero", "nas.toy:SPACE", "unet\n\nTraceback"),
)


def change_architecture(folder: Path, draw: random.Random) -> None:
    """One field, at any depth, is replaced, removed or renamed."""
    value = json.loads((folder / ARCHITECTURE).read_text())
    inner, key = value, draw.choice(list(value))
    while isinstance(inner[key], dict) and inner[key] and draw.random() < 0.7:
        inner = inner[key]
        key = draw.choice(list(inner))
    action = draw.randrange(3)
    if action == 0:
        inner[key] = draw.choice(STRANGE)
    elif action == 1:
        del inner[key]
    else:
        inner[str(draw.choice(STRANGE))] = inner.pop(key)
    (folder / ARCHITECTURE).write_text(json.dumps(value))


def damage_bytes(folder: Path, draw: random.Random) -> None:
    """A file is cut off, grown, overwritten in places, or swapped for another."""
    names = [ARCHITECTURE, WEIGHTS, ONNX]
    file = folder / draw.choice(names)
    content = bytearray(file.read_bytes())
    action = draw.randrange(4)
    if action == 0:
        content = content[: draw.randrange(len(content))]
    elif action == 1:
        content += draw.randbytes(draw.choice([1, 8, 100_000]))
    elif action == 2:
        for _ in range(draw.choice([1, 10, 100])):
            content[draw.randrange(len(content))] = draw.randrange(256)
    else:
        content = bytearray((folder / draw.choice([*names, PROGRAM])).read_bytes())
    file.write_bytes(content)


def change_tensors(folder: Path, draw: random.Random) -> None:
    """Tensors of other shapes, kinds, names and values."""
    tensors = load((folder / WEIGHTS).read_bytes())
    name = draw.choice(list(tensors))
    action = draw.randrange(6)
    if action == 0:
        tensors[name] = torch.zeros(draw.choice([(0,), (1,), (1000, 1000), (2, 2, 2, 2)]))
    elif action == 1:
        tensors[name] = tensors[name].to(draw.choice([torch.float64, torch.float16, torch.int8, torch.bool]))
    elif action == 2:
        tensors[draw.choice(["../weights", "spy", "__class__", "x" * 5000])] = tensors.pop(name)
    elif action == 3:
        del tensors[name]
    elif action == 4 and tensors[name].is_floating_point():
        tensors[name] = torch.full_like(tensors[name], draw.choice([float("nan"), float("inf"), 3e38]))
    else:
        other = draw.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    (folder / WEIGHTS).write_bytes(save({key: value.contiguous() for key, value in tensors.items()}))


def forge_header(folder: Path, draw: random.Random) -> None:
    """A safetensors header that promises what is not there."""
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entry = header[draw.choice([name for name in header if name != "__metadata__"])]
    action = draw.randrange(4)
    if action == 0:
        entry["data_offsets"] = draw.choice([[0, 2**62], [-1, 4], [8, 0], [2**62, 2**63]])
    elif action == 1:
        entry["shape"] = draw.choice([[2**40], [2**32, 2**32], [-4], [0], ["a"]])
    elif action == 2:
        entry["dtype"] = draw.choice(["F128", "object", 7, None])
    else:
        header["__metadata__"] = {"code": PLANTED}
    text = json.dumps(header).encode()
    size = draw.choice([len(text), len(text), 2**63, 0])
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", size) + text + content[8 + length :])


def trick_paths(folder: Path, draw: random.Random) -> None:
    """Links, folders and pipes in place of files, and files that nobody asked for."""
    file = folder / draw.choice([ARCHITECTURE, WEIGHTS, ONNX])
    action = draw.randrange(6)
    if action == 0:
        for name in ("setup.py", "__init__.py", "sitecustomize.py", "conftest.py", "nas.py", "torch.py"):
            (folder / name).write_text(PLANTED)
        (folder / "..weights").write_bytes(b"x")
        return
    file.unlink()
    if action == 1:
        file.symlink_to(draw.choice(["/etc/passwd", "/dev/zero", "nowhere", file.name, "/proc/self/mem", "/"]))
    elif action == 2:
        file.mkdir()
    elif action == 3:
        os.mkfifo(file)
    elif action == 4:
        torch.save({"weights": Planted()}, file)


class Planted:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (PLANTED,)


def change_onnx(folder: Path, draw: random.Random) -> None:
    """A program with operators, files or shapes that programs of bundles do not have."""
    model = onnx.load_model_from_string((folder / ONNX).read_bytes())
    tensor = draw.choice(list(model.graph.initializer))
    action = draw.randrange(6)
    if action == 0:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", draw.choice(["../../secret", "/etc/passwd", WEIGHTS])), ("length", "64")):
            tensor.external_data.add(key=key, value=value)
    elif action == 1:
        draw.choice(list(model.graph.node)).domain = "evil.custom"
    elif action == 2:
        tensor.dims[:] = draw.choice([[2**40], [-1], [0], []])
    elif action == 3:
        model.graph.input.append(helper.make_tensor_value_info("spy", TensorProto.FLOAT, [1]))
    elif action == 4:
        node = draw.choice(list(model.graph.node))
        node.input[0] = node.output[0]
    else:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    (folder / ONNX).write_bytes(model.SerializeToString())


STRANGERS: tuple[Callable[[Path, random.Random], None], ...] = (
    change_architecture,
    damage_bytes,
    change_tensors,
    forge_header,
    trick_paths,
    change_onnx,
)


def open_network(folder: Path) -> Any:
    return open_bundle(folder, known_space).network


def open_program(folder: Path) -> Any:
    return open_onnx(folder / ONNX)


def refused(open_it: Callable[[Path], Any], folder: Path) -> bool:
    """Opens; whether it was refused. Anything but one clear line about the bundle fails the test."""
    try:
        found = open_it(folder)
    except BundleError as error:
        text = str(error)
        assert str(folder) in text
        assert text.isprintable(), text
        assert len(text) < len(str(folder)) + 320, text
        return True
    denoised, logits = found(noisy_digits(2))
    assert denoised.shape == (2, 1, 8, 8)
    assert len(logits) == 2
    return False


def test_strange_bundles(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refusals = 0
    for case in range(CASES):
        draw = random.Random(case)
        folder = tmp_path / "bundle"
        shutil.copytree(prepared, folder)
        stranger = STRANGERS[case % len(STRANGERS)]
        stranger(folder, draw)
        if draw.random() < 0.7:  # whoever changes a bundle on purpose makes its sums fit
            with suppress(OSError):
                write_sums(folder)
        before = sorted(path.name for path in folder.iterdir())
        with torch.no_grad():
            network = refused(open_network, folder)
            program = refused(open_program, folder)
        refusals += network or program
        assert sorted(path.name for path in folder.iterdir()) == before, case
        assert list((tmp_path / "here").iterdir()) == [], f"case {case} executed something or wrote a file"
        shutil.rmtree(folder)
    assert refusals > CASES // 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.custom"


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("spy", TensorProto.FLOAT, [1]))


def loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def huge(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("side", TensorProto.INT64, [1], [2**28]))


def endless(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("side", TensorProto.INT64, [1], [2**40]))


def endless_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["side"], value_ints=[3 * 10**9]))


def shared_end(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("end", TensorProto.INT64, [1], [2**63 - 1]))
    model.graph.node.append(helper.make_node("Slice", ["noisy", "end", "end"], ["nothing"]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["end"], ["everything"]))


def promised(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="all", data_type=TensorProto.FLOAT, dims=[2**30, 2**30]))


def many(model: onnx.ModelProto) -> None:
    for index in range(onnx_model.MAX_NODES):
        model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], [f"x{index}"]))


def strings(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external, "lies in another file"),
        (foreign, "is of 'evil.custom', not of ONNX"),
        (two_inputs, "goes from ['noisy', 'spy'] to"),
        (strings, "must be float32 of 4 dimensions"),
        (loop, "operator 'Loop' is in no program that skipnas writes"),
        (huge, "tensor 'side' has whole numbers above 65536"),
        (endless, "tensor 'side' has whole numbers above 65536"),
        (endless_constant, "tensor 'side' has whole numbers above 65536"),
        (shared_end, "tensor 'end' has whole numbers above 65536"),
        (promised, "tensor 'all' is larger than a network's"),
        (many, "nodes, may have 20000"),
    ],
)
def test_a_program_that_is_no_bundle_s(
    prepared: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model = onnx.load_model_from_string((prepared / ONNX).read_bytes())
    change(model)
    (tmp_path / ONNX).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"model\.onnx: ") as raised:
        open_onnx(tmp_path / ONNX)
    assert reason in str(raised.value)


def program(nodes: list[onnx.NodeProto], file: Path) -> Path:
    """Writes a program of these nodes, with the inputs and outputs of a bundle's."""
    images = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, "h", "w"]) for n in ("noisy", "denoised")]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "k"])
    weights = [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 3])]
    graph = helper.make_graph(nodes, "made up", images[:1], [images[1], logits], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    file.write_bytes(model.SerializeToString())
    return file


def test_a_program_that_fails_or_returns_other_sizes_is_one_line(tmp_path: Path) -> None:
    half = helper.make_node("AveragePool", ["noisy"], ["denoised"], kernel_shape=[2, 2], strides=[2, 2])
    same = helper.make_node("Identity", ["noisy"], ["denoised"])
    three = helper.make_node("Reshape", ["noisy", "shape"], ["logits"])  # fails unless the pixels divide by 3
    for nodes, size, reason in (
        ([half, three], (3, 1, 4, 4), "for images (3, 1, 4, 4) it returns images (3, 1, 2, 2)"),
        ([same, three], (3, 1, 4, 4), "and logits (16, 3), not (3, 1, 4, 4) and (3, 3)"),
        ([same, three], (1, 1, 4, 4), "it fails ("),
    ):
        run = open_onnx(program(nodes, tmp_path / ONNX))
        with pytest.raises(BundleError, match=r"model\.onnx: ") as raised:
            run(torch.rand(size))
        assert reason in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    three_each = helper.make_node("Reshape", ["noisy", "shape"], ["logits"])
    run = open_onnx(program([same, three_each], tmp_path / ONNX), classes=4)
    with pytest.raises(BundleError, match=r"logits \(2, 3\), not \(2, 1, 1, 3\) and \(2, 4\)"):
        run(torch.rand(2, 1, 1, 3))


@pytest.mark.parametrize("output", ["denoised", "logits"])
def test_answers_that_are_no_numbers_become_neither_image_nor_class(
    prepared: Path, tmp_path: Path, output: str
) -> None:
    bundle = shutil.copytree(prepared, tmp_path / "bundle")
    model = onnx.load_model_from_string((bundle / ONNX).read_bytes())
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("nothing", TensorProto.FLOAT, [], [float("nan")]))
    model.graph.node.append(helper.make_node("Mul", ["before", "nothing"], [output]))
    (bundle / ONNX).write_bytes(model.SerializeToString())
    write_sums(bundle)
    noisy = tmp_path / "noisy.png"
    Image.fromarray(digits(1).images[0, 0]).save(noisy)
    finished, (refused,) = denoise(bundle, [noisy], tmp_path / "to", onnx=True)
    assert finished == []
    assert refused.reason == ("the network answers values that are no numbers (NaN or infinity); give another bundle")
    assert list(tmp_path.rglob("to/*.png")) == []
    with pytest.raises(BundleError, match="the network answers values that are no numbers"):
        assess(open_onnx(bundle / ONNX), digits(8), parse_noise("gaussian:50"), seed=0)


def test_every_operator_of_our_programs_is_allowed(prepared: Path) -> None:
    model = onnx.load_model_from_string((prepared / ONNX).read_bytes())
    assert {node.op_type for node in model.graph.node} <= onnx_model.OPERATORS
    assert not onnx_model.OPERATORS & {"Loop", "If", "Scan", "SequenceMap", "Range", "Optional"}
