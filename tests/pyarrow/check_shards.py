#!/usr/bin/env python3
"""Reads a data set with pyarrow alone: what other tools see is what the format says.

usage: check_shards.py DATASET
"""

import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.ipc

FACES = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.uint32(), nullable=False),
        pa.field("source", pa.utf8(), nullable=False),
        pa.field("width", pa.uint16(), nullable=False),
        pa.field("height", pa.uint16(), nullable=False),
        pa.field("hash", pa.binary(16), nullable=False),
        pa.field("sharpness", pa.float32(), nullable=False),
        pa.field("brightness", pa.float32(), nullable=False),
        pa.field("contrast", pa.float32(), nullable=False),
    ]
)
IDENTITIES = pa.schema(
    [
        pa.field("label", pa.uint32(), nullable=False),
        pa.field("names", pa.list_(pa.field("item", pa.utf8(), nullable=False)), nullable=False),
        pa.field("n_images", pa.uint64(), nullable=False),
    ]
)


def check(holds, what):
    if not holds:
        sys.exit(f"error: {what}")


def read(path, schema):
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    check(table.schema.equals(schema), f"{path}: schema is\n{table.schema}\nexpected\n{schema}")
    check(table.schema.metadata == {b"pfc.format": b"1"}, f"{path}: metadata {table.schema.metadata}")
    table.validate(full=True)
    return table


def main(dataset):
    manifest = json.loads((dataset / "dataset.json").read_text())
    check(manifest["format"] == 1, f"format {manifest['format']}")
    size = manifest["image_size"]

    identities = read(dataset / manifest["identities"]["file"], IDENTITIES).to_pydict()
    n_identities = manifest["n_identities"]
    check(identities["label"] == list(range(n_identities)), "labels do not count up from 0")
    check(all(identities["names"]), "an identity has no name")

    counts = [0] * n_identities
    n_rows = n_bytes = 0
    for shard in manifest["shards"]:
        path = dataset / shard["file"]
        check(path.stat().st_size == shard["bytes"], f"{path}: {path.stat().st_size} bytes")
        table = read(path, FACES)
        check(table.num_rows == shard["rows"], f"{path}: {table.num_rows} rows")
        for label in table["label"].to_pylist():
            check(label < n_identities, f"{path}: label {label} of {n_identities} identities")
            counts[label] += 1
        check(set(table["width"].to_pylist()) <= {size["width"]}, f"{path}: widths")
        check(set(table["height"].to_pylist()) <= {size["height"]}, f"{path}: heights")
        hashes = {}
        for image, digest in zip(table["image"].to_pylist(), table["hash"].to_pylist()):
            check(image[:2] == b"\xff\xd8", f"{path}: an image is no JPEG")
            check(len(digest) == 16, f"{path}: a hash of {len(digest)} bytes")
            check(hashes.setdefault(digest, image) == image, f"{path}: two images share a hash")
        n_rows += table.num_rows
        n_bytes += table.nbytes
    check(n_rows == manifest["rows"], f"{n_rows} rows, the manifest lists {manifest['rows']}")
    check(counts == identities["n_images"], "images per identity differ from the table")
    print(
        f"pyarrow {pa.__version__} reads {dataset}: {len(manifest['shards'])} shards, "
        f"{n_rows} rows, {n_identities} identities, {n_bytes} bytes"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
