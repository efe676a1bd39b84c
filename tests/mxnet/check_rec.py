#!/usr/bin/env python3
"""Reads an exported RecordIO folder with MXNet, record for record, against the folder it came from.

usage: check_rec.py FACES REC

FACES holds one folder of JPEG files per identity; labels number the folders in byte order of their
names. REC holds train.rec, train.idx and property.
"""

import collections
import pathlib
import sys

import mxnet as mx
import numpy as np


def check(holds, what):
    if not holds:
        sys.exit(f"error: {what}")


def expected(faces):
    """How often each (label, file content) occurs, and the number of identities."""
    folders = sorted((f for f in faces.iterdir() if f.is_dir()), key=lambda f: f.name.encode())
    pairs = ((label, f.read_bytes()) for label, folder in enumerate(folders) for f in folder.iterdir())
    return collections.Counter(pairs), len(folders)


def main(faces, folder):
    wanted, n_identities = expected(faces)
    rec = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
    read = lambda key: mx.recordio.unpack(rec.read_idx(key))
    header, body = read(0)
    # What InsightFace's data set does with record 0.
    if header.flag > 0:
        check(not body, "record 0 has a body")
        images_end, identities_end = (int(bound) for bound in header.label)
        keys = list(range(1, images_end))
        identities = list(range(images_end, identities_end))
        check(len(identities) == n_identities, f"{len(identities)} identity records")
        check(rec.keys == keys + identities + [0], "keys are not images, identities, 0")
        style = "identity records"
    else:
        keys, identities = list(rec.keys), []
        check(keys == list(range(len(keys))), "keys do not count from 0")
        style = "scalar labels"

    found, label_of = collections.Counter(), {}
    for key in keys:
        header, image = read(key)
        check(header.id == key and header.id2 == 0, f"record {key}: ids {header.id}, {header.id2}")
        if identities:
            label, aligned = header.label
            check(header.flag == 2 and aligned == 1, f"record {key}: {header}")
        else:
            check(header.flag == 0, f"record {key}: {header}")
            label = header.label
        label_of[key] = int(label)
        found[int(label), image] += 1
        shape = mx.image.imdecode(image).shape
        check(shape == (112, 112, 3), f"record {key}: decodes to {shape}")
    check(found == wanted, f"{len(found - wanted)} images or labels differ from those in {faces}")

    walked = []
    for label, key in enumerate(identities):
        header, body = read(key)
        check(header.flag == 2 and not body, f"record {key}: {header}")
        first, end = (int(bound) for bound in header.label)
        check(all(label_of[k] == label for k in range(first, end)), f"record {key}: another's images")
        walked += range(first, end)
    check(not identities or walked == keys, "identity records do not walk through all images once")

    classes, height, width = (folder / "property").read_text().splitlines()[0].split(",")
    check((int(classes), height, width) == (n_identities, "112", "112"), "property")
    print(
        f"MXNet {mx.__version__}, NumPy {np.__version__} reads {folder} ({style}): {len(keys)} images, "
        f"{n_identities} identities, all labels and bytes equal"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
