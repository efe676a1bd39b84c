"""Lays out a libtorch folder from PyPI wheels; called by scripts/setup. Standard library only."""

import argparse
import email
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile

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


def unpack(flavour: str, wheels: pathlib.Path, home: pathlib.Path) -> None:
    """Unpacks beside `home` and renames, so that a folder named `home` is always complete."""
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home.parent))
    try:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    target = wanted(flavour, member.filename)
                    if target is None or member.is_dir():
                        continue
                    path = temporary / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, open(path, "wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                if wheel.name.startswith("torch-"):
                    text = archive.read("torch/version.py").decode()
                    version = re.search(r"^__version__ = '(.+)'", text, re.MULTILINE)[1]
        lib = temporary / "lib"
        if flavour == "cpu":
            # The real libtorch.so would pull in libtorch_cuda.so.
            (lib / "libtorch.so").symlink_to("libtorch_cpu.so")
        (temporary / "build-version").write_text(version + "\n")
        temporary.chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        temporary.rename(home)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def requirements(wheel: pathlib.Path) -> list[str]:
    """The NVIDIA wheels that a torch wheel asks for, as pip requirements."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    found = []
    for requirement in metadata.get_all("Requires-Dist", []):
        name = requirement.split(";")[0].strip()
        if not name.startswith(("nvidia-", "cuda-toolkit")):
            continue
        extras = re.search(r"\[(.*?)\]", name)
        if name.startswith("cuda-toolkit") and extras:
            release = re.search(r"==(\d+\.\d+)", name)[1]
            found += [f"{TOOLKIT.get(e, 'nvidia-' + e)}=={release}.*" for e in extras[1].split(",")]
        else:
            found.append(name.replace(" ", ""))
    return found


# Extras of the cuda-toolkit wheel whose package name is not `nvidia-<extra>`.
TOOLKIT = {
    "cudart": "nvidia-cuda-runtime",
    "cupti": "nvidia-cuda-cupti",
    "nvrtc": "nvidia-cuda-nvrtc",
    "cufft": "nvidia-cufft",
    "cufile": "nvidia-cufile",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("unpack")
    command.add_argument("--flavour", choices=("cpu", "cuda"), required=True)
    command.add_argument("wheels", type=pathlib.Path)
    command.add_argument("home", type=pathlib.Path)
    command = commands.add_parser("requirements")
    command.add_argument("wheel", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "requirements":
        print("\n".join(requirements(arguments.wheel)))
        return 0
    try:
        unpack(arguments.flavour, arguments.wheels, arguments.home)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: cannot unpack into {arguments.home}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
