"""Lays out a libtorch folder from PyPI wheels; called by scripts/setup. Standard library only.

`libtorch.py --needs FOLDER` prints what else torch's CUDA wheel, which is in FOLDER, needs to load: without
Triton and what else only Python uses.
"""

import argparse
import pathlib
import re
import sys
import zipfile

import wheels

# libtorch_cpu.so of the CUDA wheel needs the CUDA runtime and CUPTI to load, and nothing else of it.
CPU_LIBRARIES = ("libtorch_cpu.so", "libc10.so")


def wanted(flavour: str, name: str) -> str | None:
    """Where a wheel's member goes below the libtorch folder; None leaves it out."""
    if name.startswith("torch/include/"):
        return name.removeprefix("torch/")
    if match := re.fullmatch(r"nvidia/(?:[^/]+/)?include/(.+)", name):
        return f"include/{match[1]}" if flavour == "cuda" else None
    file = name.rsplit("/", 1)[-1]
    is_library = ".so" in file and not name.startswith("torch/_C") and "/lib" in name
    if not is_library:
        return None
    if flavour == "cuda":
        return None if file == "libtorch_python.so" else f"lib/{file}"
    keep = file in CPU_LIBRARIES or file.startswith(("libgomp", "libcudart.so", "libcupti.so"))
    return f"lib/{file}" if keep else None


def needs(wheel: pathlib.Path) -> list[str]:
    """The requirements of a wheel that bring libraries of CUDA."""
    with zipfile.ZipFile(wheel) as files:
        metadata = next(name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return needs_of(files.read(metadata).decode())


def needs_of(metadata: str) -> list[str]:
    lines = re.findall(r"^Requires-Dist: *(.+)$", metadata, re.MULTILINE)
    requirements = [line.split(";")[0].strip() for line in lines if "extra ==" not in line]
    return [text for text in requirements if text.startswith(("cuda-toolkit", "nvidia-"))]


def fill(arguments: argparse.Namespace, home: pathlib.Path) -> None:
    """Copies what is wanted of all wheels below `home`."""
    for path in sorted(arguments.wheels.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheels.extract(wheel, home, lambda name: wanted(arguments.flavour, name))
            if path.name.startswith("torch-"):
                text = wheel.read("torch/version.py").decode()
                version = re.search(r"^__version__ = '(.+)'", text, re.MULTILINE)[1]
                (home / "build-version").write_text(version + "\n")
    if arguments.flavour == "cpu":
        # The wheel's own libtorch.so would pull in libtorch_cuda.so.
        (home / "lib/libtorch.so").symlink_to("libtorch_cpu.so")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--needs"]:
        print(*needs(next(pathlib.Path(sys.argv[2]).glob("torch-*.whl"))), sep="\n")
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flavour", choices=("cpu", "cuda"), required=True)
    sys.exit(wheels.run(parser, fill))
