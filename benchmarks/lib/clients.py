"""Runtimes that run exported programs, each installed into a folder of its own and used in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["python", "node", "page"]
Takes = Literal["every size", "one size", "model.pt2"]
"""What a client is given: the ONNX program for every batch and size, that for one image of one size, or model.pt2, of
which it makes a program for one image of one size."""

PROGRAMS: Mapping[Kind, Path] = {
    "python": Path(__file__).with_name("client_program.py"),
    "node": Path(__file__).with_name("client_program.mjs"),
    "page": Path(__file__).with_name("client_page.py"),
}
"""The programs that use clients, by what runs them: a Python of the client's own, node, or this project's page in a
browser."""

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 900
"""The longest time for a step of an installation."""

PROGRAM_SECONDS = 120
"""The longest time for a program, on average over those of a client. Converters take most of it."""


@dataclass(frozen=True, slots=True)
class Client:
    """A runtime.

    Attributes:
        title: its name in the table.
        packages: what is installed for it, by pip for `python`, otherwise by npm.
        runtime: its name in `client_program.py`, or the package of npm.
        takes: the program that it is given.
        kind: what runs it.
        ours: whether it uses the libraries of this project, such as PyTorch, for `python`.
    """

    title: str
    packages: tuple[str, ...]
    runtime: str
    takes: Takes
    kind: Kind = "python"
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A program, its images (N, C, H, W), and what it should return."""

    program: Path
    images: NDArray[np.float32]
    wanted: tuple[NDArray[np.float32], ...]


CLIENTS: Mapping[str, Client] = {
    "onnxruntime-1.17": Client("ONNX Runtime 1.17", ("onnxruntime==1.17.3", "numpy<2"), "onnxruntime", "every size"),
    "onnxruntime-1.32": Client("ONNX Runtime 1.32", ("onnxruntime==1.32.0",), "onnxruntime", "every size"),
    "openvino": Client("OpenVINO 2026.4", ("openvino==2026.4.1",), "openvino", "every size"),
    "node": Client("node 1.30", ("onnxruntime-node@1.30.0",), "onnxruntime-node", "every size", "node"),
    "web": Client("web (wasm) 1.30", ("onnxruntime-web@1.30.0",), "onnxruntime-web", "every size", "node"),
    "page": Client("page in Chromium", ("onnxruntime-web@1.30.0",), "onnxruntime-web", "every size", "page"),
    "opencv-4.10": Client("OpenCV 4.10", ("opencv-python-headless==4.10.0.84",), "opencv", "one size"),
    "opencv-4.14": Client("OpenCV 4.14", ("opencv-python-headless==4.14.0.94",), "opencv", "one size"),
    "opencv-5": Client("OpenCV 5.0", ("opencv-python-headless==5.0.0.93",), "opencv", "one size"),
    "ncnn": Client("ncnn 20261020", ("ncnn==1.0.20261020", "pnnx==20261020"), "ncnn", "one size"),
    "litert": Client("LiteRT 2.3 (litert-torch 0.10)", ("litert-torch==0.10.0",), "litert", "model.pt2", ours=True),
    "onnx2torch": Client("onnx2torch 1.5.15", ("onnx2torch==1.5.15",), "onnx2torch", "one size", ours=True),
}


class NotInstalledError(Exception):
    """A client cannot be installed here."""


def installed(name: str, folder: Path) -> Path:
    """Installs a client into a folder, unless it is there, and returns the program that runs it.

    Raises:
        NotInstalledError: it cannot be installed.
    """
    client, place = CLIENTS[name], folder / name
    done = place / "installed"
    python = place / "bin" / "python"
    npm = shutil.which("npm")
    if client.kind != "python" and npm is None:
        raise NotInstalledError("npm is not installed")
    if client.kind == "page" and shutil.which("chromium") is None:
        raise NotInstalledError("chromium is not installed")
    if not done.is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if client.kind != "python":
            # Their scripts would download libraries for GPUs.
            steps = [[str(npm), "install", "--prefix", str(place), "--ignore-scripts", "--no-audit", *client.packages]]
        else:
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            alone = [package for package in client.packages if package.startswith("pnnx")]  # without its PyTorch
            _step([sys.executable, "-m", "venv", str(place)])
            if client.ours:
                (library,) = place.glob("lib/*/site-packages")
                (library / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
            steps = [[*pip, *(set(client.packages) - set(alone)), "numpy"]]
            steps += [[*pip, "--no-deps", *alone]] if alone else []
        for step in steps:
            _step(step)
        done.touch()
    return {"python": python, "node": Path(str(shutil.which("node"))), "page": Path(sys.executable)}[client.kind]


def _step(command: Sequence[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"{command[0]} took more than {INSTALL_SECONDS} s") from None
    if ended.returncode != 0:
        raise NotInstalledError(" ".join(ended.stderr.split())[-300:])


def differences(name: str, jobs: Sequence[Job], folder: Path, work: Path) -> list[float | str]:
    """Returns the largest difference of each program's outputs to what is wanted, or its error in one line.

    Args:
        name: of the client.
        folder: where clients are installed.
        work: an empty folder for files.
    """
    client, program = CLIENTS[name], installed(name, folder)
    asked = []
    for place, job in enumerate(jobs):
        images = work / f"{place}.npy"
        if client.kind == "node":
            images.write_bytes(job.images.tobytes())
        else:
            np.save(images, job.images)
        asked.append(
            {
                "program": str(job.program.resolve()),
                "images": str(images),
                "shape": job.images.shape,
                "outputs": len(job.wanted),
                "to": str(work / f"{place}-"),
            }
        )
    command = [str(program), str(PROGRAMS[client.kind]), client.runtime]
    longest = PROGRAM_SECONDS * len(jobs)
    try:
        ended = subprocess.run(
            [*command, str(folder / name)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=longest,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)} if client.kind == "page" else None,
        )
    except subprocess.TimeoutExpired:
        return [f"all programs together took more than {longest} s"] * len(jobs)
    try:
        errors = json.loads(ended.stdout)
    except ValueError:  # the process has crashed
        return [f"exit code {ended.returncode}: {' '.join(ended.stderr.split())[-200:]}"] * len(jobs)
    return [error or _difference(work, place, jobs[place], client.kind == "node") for place, error in enumerate(errors)]


def _difference(work: Path, place: int, job: Job, node: bool) -> float | str:
    largest = 0.0
    for number, wanted in enumerate(job.wanted):
        file = work / f"{place}-{number}.npy"
        if node:
            shape = json.loads(file.with_suffix(".json").read_text())
            found = np.frombuffer(file.with_suffix(".bin").read_bytes(), np.float32).reshape(shape)
        else:
            found = np.load(file)
        if found.shape != wanted.shape:
            return f"shape {found.shape} instead of {wanted.shape}"
        largest = max(largest, float(np.abs(found - wanted).max()))
    return largest
