"""Runs exported programs in one runtime. A client's own Python runs this file, so it uses NumPy and the runtime alone.

    python client_program.py RUNTIME FOLDER < list of jobs in JSON > results in JSON

A job has ``program``, ``images`` (a file of NumPy), ``outputs`` (their number) and ``to`` (prefix of the files of the
results). A result is an empty text, or the error in one line.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


def onnx_runtime(program: str, images: Images, outputs: int) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as `nas.bundles` does, which is not installed here
    import onnxruntime

    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    return session.run(None, {"noisy": images})


def openvino(program: str, images: Images, outputs: int) -> Any:
    from openvino import Core

    compiled = Core().compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(images)
    return [found[place] for place in range(outputs)]


def opencv(program: str, images: Images, outputs: int) -> Any:
    import cv2

    network = cv2.dnn.readNetFromONNX(program)
    network.setInput(images, "noisy")
    return network.forward(["denoised", "logits"][:outputs])


def ncnn(program: str, images: Images, outputs: int) -> Any:
    import ncnn

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.onnx")  # pnnx writes its files beside the program
        copy.write_bytes(Path(program).read_bytes())
        shape = ",".join(map(str, images.shape))
        found = find_spec("pnnx")  # the package around its program needs PyTorch
        assert found is not None
        assert found.origin is not None
        command = [str(Path(found.origin).with_name("pnnx")), str(copy), f"inputshape=[{shape}]f32", "fp16=0"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        network = ncnn.Net()
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(network.opt, name, False)
        parameters = Path(folder, "model.ncnn.param")
        if not parameters.is_file():
            raise RuntimeError(f"pnnx wrote no program: {said.stderr[-200:]}")
        if network.load_param(str(parameters)) != 0:
            kinds = {line.split()[0] for line in parameters.read_text().splitlines()[2:]}
            raise RuntimeError(f"ncnn lacks layers that pnnx wrote: {', '.join(sorted(k for k in kinds if '.' in k))}")
        network.load_model(str(Path(folder, "model.ncnn.bin")))
        with network.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(images[0]).clone())
            return [np.array(extractor.extract(f"out{place}")[1])[None] for place in range(outputs)]


def litert(program: str, images: Images, outputs: int) -> Any:
    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter

    class Asked(torch.nn.Module):
        """The network with the outputs that it has values for, because LiteRT takes no empty one."""

        def __init__(self) -> None:
            super().__init__()
            self.network = torch.export.load(program).module()

        def forward(self, noisy: torch.Tensor) -> Any:
            return self.network(noisy)[:outputs]

    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder, "model.tflite")
        litert_torch.convert(Asked(), (torch.zeros(images.shape),)).export(str(converted))
        run = Interpreter(str(converted), num_threads=1).get_signature_runner()
        found = run(args_0=images)
    return [found[f"output_{place}"] for place in range(outputs)]


def onnx_to_torch(program: str, images: Images, outputs: int) -> Any:
    import torch
    from onnx2torch import convert

    with torch.no_grad():
        found = convert(program).eval()(torch.from_numpy(images))
    return [each.numpy() for each in ([found] if outputs == 1 else found)]


RUNTIMES = {
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "opencv": opencv,
    "ncnn": ncnn,
    "litert": litert,
    "onnx2torch": onnx_to_torch,
}


def main() -> None:
    run, results = RUNTIMES[sys.argv[1]], []
    jobs = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)  # some runtimes print
    for job in jobs:
        try:
            found = run(job["program"], np.load(job["images"]), job["outputs"])
            for place, values in enumerate(found):
                np.save(f"{job['to']}{place}.npy", values)
            results.append("")
        except Exception as error:
            results.append(" ".join(str(error).split())[:300] or type(error).__name__)
    os.write(out, json.dumps(results).encode())


if __name__ == "__main__":
    main()
