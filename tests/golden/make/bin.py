#!/usr/bin/env python3
"""Pickles verification packs of made-up pictures in the dialects that published ones have.

usage: bin.py FOLDER PYTHON2 NUMPY1

PYTHON2 is a Python 2.7, which pickles text as 8-bit strings; NUMPY1 is a folder that holds NumPy 1.26,
whose arrays name other modules than those of NumPy 2. The file of a dialect comes from the program
that it is named after. Images 2i and 2i+1 are pair i; one image takes part in several pairs.
"""

import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import save_file

from pictures import decoded, encoded, flat, smooth

# Which of the pictures make a pair.
ORDER = [0, 1, 2, 3, 1, 4, 5, 0]
SAME = [True, False, True, False]

# Reads length-prefixed images from a file and pickles them with the protocol asked for.
PYTHON2_PROGRAM = """
import pickle, struct, sys
data = open(sys.argv[1], "rb").read()
images, at = [], 0
while at < len(data):
    (n,) = struct.unpack("<I", data[at:at + 4])
    images.append(data[at + 4:at + 4 + n])
    at += 4 + n
same = [word == "1" for word in sys.argv[4:]]
pickle.dump((images, same), open(sys.argv[2], "wb"), int(sys.argv[3]))
"""

NUMPY_PROGRAM = """
import pickle, struct, sys
import numpy as np
data = open(sys.argv[1], "rb").read()
images, at = [], 0
while at < len(data):
    (n,) = struct.unpack("<I", data[at:at + 4])
    images.append(np.frombuffer(data[at + 4:at + 4 + n], np.uint8).copy())
    at += 4 + n
same = [word == "1" for word in sys.argv[5:]]
if sys.argv[4] == "column":
    images = [image[:, None] for image in images]
elif sys.argv[4] == "npbool":
    same = [np.bool_(label) for label in same]
elif sys.argv[4] == "boolarray":
    same = np.array(same)
pickle.dump((images, same), open(sys.argv[2], "wb"), int(sys.argv[3]))
"""


def jpegs():
    how = [
        {"quality": 80}, {"quality": 90, "subsampling": "4:4:4"}, {"quality": 75, "subsampling": "4:2:2"},
        {"quality": 80, "progressive": True}, {"quality": 85}, {"quality": 70},
    ]
    files = [encoded(smooth(100 + i), **options) for i, options in enumerate(how)]
    files[5] = encoded(smooth(105).mean(-1).astype(np.uint8), quality=80)
    return files


def pngs():
    return [encoded(flat(200 + i), "PNG", optimize=True) for i in range(6)]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def describe(index, content, kind):
    rgb = decoded(content)
    return {
        "index": index, "bytes": len(content), "sha256_of_bytes": sha256(content),
        "sha256_of_rgb": sha256(rgb.tobytes()),
        "channel_means": rgb.reshape(-1, 3).mean(0).tolist(), "encoding": {"format": kind},
    }


def main(folder, python2, numpy1):
    folder.mkdir(exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp()) / "images"
    words = [str(int(same)) for same in SAME]

    def write(images, path, program, protocol):
        kind, _, how = program.partition("/")
        if kind == "py3":
            path.write_bytes(pickle.dumps((images, SAME), protocol))
            return
        prefixed = b"".join(len(image).to_bytes(4, "little") + image for image in images)
        scratch.write_bytes(prefixed)
        arguments = [str(scratch), str(path), str(protocol)]
        if kind == "py2":
            command, paths = [python2, "-c", PYTHON2_PROGRAM, *arguments, *words], {}
        else:
            command = [sys.executable, "-c", NUMPY_PROGRAM, *arguments, how, *words]
            paths = {"PYTHONPATH": numpy1} if kind == "numpy1" else {}
        subprocess.run(command, check=True, env={**os.environ, **paths})

    numpy1_kinds = ["array", "column", "npbool", "boolarray"]
    dialects = {
        "JPEG": [("py2", 0), ("py2", 1), ("py2", 2), ("py3", 2), ("py3", 3), ("py3", 4), ("py3", 5)]
        + [(f"numpy1/{kind}", 3) for kind in numpy1_kinds]
        + [("numpy2/array", protocol) for protocol in (2, 4, 5)],
        "PNG": [("py2", 2), ("py3", 4)],
    }
    for kind, pictures in [("JPEG", jpegs()), ("PNG", pngs())]:
        images = [pictures[i] for i in ORDER]
        stem, files = f"made4_{kind.lower()}", {}
        for program, protocol in dialects[kind]:
            first, _, how = program.partition("/")
            name = "_".join(filter(None, [stem, first, f"p{protocol}", how]))
            path = folder / f"{name}.bin"
            write(images, path, program, protocol)
            content = path.read_bytes()
            files[name] = {
                "pairs": len(SAME), "protocol": protocol, "file_bytes": len(content),
                "sha256": sha256(content),
            }
        description = {
            "files": files, "issame": SAME,
            "images": [describe(i, image, kind) for i, image in enumerate(images)],
        }
        (folder / f"{stem}.json").write_text(json.dumps(description, indent=1) + "\n")
        if kind == "JPEG":
            # Chroma at half size, and grey.
            pixels = {f"rgb.{i}": decoded(images[i]) for i in (0, 6)}
            save_file(pixels, folder / f"{stem}_rgb.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
