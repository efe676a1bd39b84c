"""Time and peak memory of the data commands on procedural faces; see scripts/bench-scale."""

import os
import shutil
import sys
import time
from pathlib import Path

IMAGES_EACH = 20


def run(program, *arguments):
    """Runs a command to its end; returns seconds and its peak of resident memory in bytes."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.execv(program, [program, *map(str, arguments), "--quiet"])
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        sys.exit(f"{' '.join(map(str, arguments))} ended with {code}")
    # Linux counts in KiB.
    return time.monotonic() - started, usage.ru_maxrss * 1024


def size_of(path):
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def main():
    program, n_images, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    raw, data, small, rec = (folder / name for name in ("raw", "data", "compacted", "rec"))
    for old in (raw, data, small, rec):
        if old.exists():
            sys.exit(f"{old} is there already: name an empty folder")
    n_people = max(1, n_images // IMAGES_EACH)
    synth = ("synth", raw, "--identities", n_people, "--images-per-identity", IMAGES_EACH)
    commands = [
        ("synth", (*synth, "--noise", "duplicated=0.02")),
        ("pack", ("pack", raw, data)),
        ("verify", ("verify", data)),
        ("clean --pass files", ("clean", data)),
        ("compact", ("compact", data, small)),
        ("export --to recordio", ("export", data, rec, "--to", "recordio")),
    ]
    total = n_people * IMAGES_EACH
    print(f"{total:,} images of {n_people:,} people, {os.cpu_count()} processors\n")
    print("| command | seconds | images/s | peak memory | bytes an image |")
    print("|---|---|---|---|---|")
    for name, arguments in commands:
        seconds, peak = run(program, *arguments)
        print(
            f"| `{name}` | {seconds:.0f} | {total / seconds:,.0f} | {peak / 1e9:.2f} GB "
            f"| {peak / total:.0f} |",
            flush=True,
        )
    print(f"\nraw {size_of(raw) / 1e9:.1f} GB, packed {size_of(data) / 1e9:.1f} GB")
    for made in (raw, data, small, rec):
        shutil.rmtree(made)


if __name__ == "__main__":
    main()
