"""What the benchmarks share: where things are, and a Python environment of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def build():
    """Builds the programs of the workspace with the release profile.

    All of them at once: built alone, each would have its libraries built again with other features.
    """
    programs = [word for name in ("ingest", "train", "eval") for word in ("-p", f"pfc-{name}")]
    subprocess.run(["cargo", "build", "--release", "--locked", "-q", *programs], cwd=ROOT, check=True)


def python_with(name, packages):
    """The Python of .venv/NAME, made if need be, with `packages` installed."""
    environment = ROOT / ".venv" / name
    python, stamp = environment / "bin" / "python", environment / "packages"
    wanted = "\n".join(packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        stamp.write_text(wanted)
    return python
