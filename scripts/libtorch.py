"""Lays out a libtorch folder from PyPI wheels; called by scripts/setup. Standard library only."""

import argparse
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


def extract(flavour: str, wheel: pathlib.Path, home: pathlib.Path) -> None:
    """Copies the wanted members of one wheel below `home`."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            target = wanted(flavour, member.filename)
            if target is None or member.is_dir():
                continue
            path = home / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        if wheel.name.startswith("torch-"):
            text = archive.read("torch/version.py").decode()
            version = re.search(r"^__version__ = '(.+)'", text, re.MULTILINE)[1]
            (home / "build-version").write_text(version + "\n")


def unpack(flavour: str, wheels: pathlib.Path, home: pathlib.Path) -> None:
    """Unpacks beside `home` and renames, so that a folder named `home` is always complete."""
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home.parent))
    try:
        for wheel in sorted(wheels.glob("*.whl")):
            extract(flavour, wheel, temporary)
        if flavour == "cpu":
            # The wheel's own libtorch.so would pull in libtorch_cuda.so.
            (temporary / "lib/libtorch.so").symlink_to("libtorch_cpu.so")
        temporary.chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        temporary.rename(home)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flavour", choices=("cpu", "cuda"), required=True)
    parser.add_argument("wheels", type=pathlib.Path, help="folder of downloaded wheels")
    parser.add_argument("home", type=pathlib.Path, help="folder to make")
    arguments = parser.parse_args()
    try:
        unpack(arguments.flavour, arguments.wheels, arguments.home)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: cannot unpack into {arguments.home}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
