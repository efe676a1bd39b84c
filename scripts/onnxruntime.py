"""Takes onnxruntime's library out of its PyPI wheel; called by scripts/setup. Standard library only."""

import argparse
import pathlib
import re
import sys
import zipfile

import wheels


def wanted(name: str) -> str | None:
    """Where a wheel's member goes below the folder; None leaves it out."""
    if match := re.fullmatch(r"onnxruntime/capi/(libonnxruntime\.so\.[0-9.]+)", name):
        return f"lib/{match[1]}"
    match = re.fullmatch(r"onnxruntime/(LICENSE|ThirdPartyNotices\.txt)", name)
    return match and match[1]


def fill(arguments: argparse.Namespace, home: pathlib.Path) -> None:
    """Copies the library and its licence below `home`."""
    path = next(iter(sorted(arguments.wheels.glob("onnxruntime-*.whl"))), None)
    if path is None:
        raise OSError(f"no wheel in {arguments.wheels}")
    with zipfile.ZipFile(path) as wheel:
        wheels.extract(wheel, home, wanted)
    library = next(home.glob("lib/libonnxruntime.so.*"), None)
    if library is None:
        raise OSError(f"{path.name} holds no libonnxruntime.so")
    (home / "lib/libonnxruntime.so").symlink_to(library.name)


if __name__ == "__main__":
    sys.exit(wheels.run(argparse.ArgumentParser(description=__doc__), fill))
