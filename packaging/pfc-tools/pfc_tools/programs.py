"""Start the programs of this package in place of Python.

pfc-train and pfc-eval are linked to libtorch and look for it in the package torch beside this one. A torch
that lies elsewhere, as in the user's own site-packages, is named to them in LD_LIBRARY_PATH.
"""

import importlib.util
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TORCH = "2.11"


def fail(message, hint):
    print(f"error: {message}\n\nhint: {hint}", file=sys.stderr)
    raise SystemExit(2)


def torch_libraries():
    """The folder of libtorch, without importing torch, which takes seconds."""
    install = f"pip install 'torch=={TORCH}.*'"
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        fail("the package torch is not installed beside pfc-tools", install)
    folder = pathlib.Path(spec.submodule_search_locations[0])
    version = version_of(folder)
    if not version.startswith(f"{TORCH}."):
        fail(
            f"torch is {version}, and the programs of pfc-tools are linked to libtorch {TORCH}",
            f"give pfc-tools an environment of its own, with pipx or `uv tool install`; or {install}",
        )
    libraries = folder / "lib"
    # scripts/dist leaves this file where the programs were linked to the CUDA part of libtorch.
    if (HERE / "needs-cuda").exists() and not (libraries / "libtorch_cuda.so").exists():
        fail(
            f"torch {version} is one without CUDA, and these programs of pfc-tools are linked to its CUDA part",
            f"{install} from pip's default index, whose torch runs without a GPU as well",
        )
    return libraries


def version_of(torch):
    """What the package's own file says: asking importlib.metadata takes longer than the program that is started."""
    path = torch / "version.py"
    found = re.search(r"^__version__ = ['\"]([^'\"]+)", path.read_text(), re.MULTILINE) if path.is_file() else None
    return found[1] if found else "of an unknown version"


def start(program, needs_torch):
    """Runs a program with this process's arguments; its exit code and signals are those of this process."""
    path = HERE / "bin" / program
    environment = dict(os.environ)
    if needs_torch:
        libraries = torch_libraries()
        if libraries != HERE.parent / "torch" / "lib":
            before = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{libraries}:{before}" if before else str(libraries)
    if "ORT_DYLIB_PATH" not in environment and (runtime := onnxruntime()):
        environment["ORT_DYLIB_PATH"] = runtime
    try:
        os.execve(path, [program, *sys.argv[1:]], environment)
    except OSError as error:
        fail(f"cannot start {path}: {error.strerror}", "install pfc-tools again")


def onnxruntime():
    """The library of the package onnxruntime; None if it is not installed."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or []:
        for path in sorted(pathlib.Path(folder, "capi").glob("libonnxruntime.so*")):
            return str(path)
    return None


def ingest():
    start("pfc-ingest", needs_torch=False)


def train():
    start("pfc-train", needs_torch=True)


def evaluate():
    start("pfc-eval", needs_torch=True)
