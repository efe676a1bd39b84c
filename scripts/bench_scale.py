"""Time and peak memory of the data commands on made-up pictures; see scripts/bench-scale."""

import concurrent.futures
import io
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES_EACH = 20
# Of an image that is like another of its person but for its compression.
NEAR_COPIES = 0.02
SIDE, CELLS = 112, 9


def draw_people(folder, first, last):
    """Pictures of some people: a field of colours for each, changed a little from image to image.

    They are no faces, which would take twenty times as long to draw; the commands measured here do the
    same work on them.
    """
    for person in range(first, last):
        random = np.random.default_rng(person)
        at = folder / f"{person:07}"
        at.mkdir()
        own = random.uniform(30, 220, (CELLS, CELLS, 3))
        cells = own
        for number in range(IMAGES_EACH):
            is_copy = number > 0 and random.random() < NEAR_COPIES
            if not is_copy:
                cells = own + random.normal(0, 25, own.shape)
            small = Image.fromarray(np.clip(cells, 0, 255).astype(np.uint8))
            out = io.BytesIO()
            large = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(out, "JPEG", quality=85 if is_copy else 90)
            (at / f"{number:02}.jpg").write_bytes(out.getvalue())


def draw(folder, n_people):
    folder.mkdir()
    with concurrent.futures.ProcessPoolExecutor() as pool:
        edges = list(range(0, n_people, 500)) + [n_people]
        jobs = [pool.submit(draw_people, folder, a, b) for a, b in zip(edges, edges[1:])]
        for job in jobs:
            job.result()


def run(program, *arguments):
    """Runs a command to its end; returns seconds, those of all processors, and its peak memory in bytes."""
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
    seconds = time.monotonic() - started
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


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
    draw(raw, n_people)
    commands = [
        ("pack", ("pack", raw, data)),
        ("verify", ("verify", data)),
        ("clean --pass files", ("clean", data)),
        ("compact", ("compact", data, small)),
        ("export --to recordio", ("export", data, rec, "--to", "recordio")),
    ]
    total = n_people * IMAGES_EACH
    print(f"{total:,} images of {n_people:,} people, {os.cpu_count()} processors\n")
    print("| command | seconds | of processors | images/s | peak memory | bytes an image |")
    print("|---|---|---|---|---|---|")
    for name, arguments in commands:
        seconds, busy, peak = run(program, *arguments)
        print(
            f"| `{name}` | {seconds:.0f} | {busy:.0f} | {total / seconds:,.0f} | {peak / 1e9:.2f} GB "
            f"| {peak / total:.0f} |",
            flush=True,
        )
    print(f"\nraw {size_of(raw) / 1e9:.1f} GB, packed {size_of(data) / 1e9:.1f} GB")
    for made in (raw, data, small, rec):
        shutil.rmtree(made)


if __name__ == "__main__":
    main()
