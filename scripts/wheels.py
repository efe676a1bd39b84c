"""What the scripts that unpack PyPI wheels share. Standard library only."""

import argparse
import contextlib
import pathlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def complete_folder(home: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill beside `home`, renamed at the end, so that what is named `home` is complete."""
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        temporary.rename(home)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def extract(
    wheel: zipfile.ZipFile, home: pathlib.Path, wanted: Callable[[str], str | None]
) -> None:
    """Copies members to where `wanted` says below `home`; None leaves one out."""
    for member in wheel.infolist():
        target = wanted(member.filename)
        if target is None or member.is_dir():
            continue
        path = home / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with wheel.open(member) as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def run(parser: argparse.ArgumentParser, fill: Callable[..., None]) -> int:
    """Fills a folder from another one of wheels by `fill(arguments, temporary)`; the exit code."""
    parser.add_argument("wheels", type=pathlib.Path, help="folder of downloaded wheels")
    parser.add_argument("home", type=pathlib.Path, help="folder to make")
    arguments = parser.parse_args()
    try:
        with complete_folder(arguments.home) as temporary:
            fill(arguments, temporary)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: cannot unpack into {arguments.home}: {error}", file=sys.stderr)
        return 2
    return 0
