#!/usr/bin/env python3
"""Reads an exported Parquet folder with pyarrow against the folder of faces it came from.

usage: check_parquet.py FACES PARQUET
"""

import collections
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

# What `datasets` writes for an Image, a ClassLabel and a string.
SCHEMA = pa.schema(
    [
        pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        pa.field("label", pa.int64()),
        pa.field("identity", pa.string()),
    ]
)


def check(holds, what):
    if not holds:
        sys.exit(f"error: {what}")


def main(faces, folder):
    folders = sorted((f for f in faces.iterdir() if f.is_dir()), key=lambda f: f.name.encode())
    names = [f.name for f in folders]
    wanted = collections.Counter(
        (file.read_bytes(), f"{folder.name}/{file.name}", label, folder.name)
        for label, folder in enumerate(folders)
        for file in folder.iterdir()
    )
    found = collections.Counter()
    files = sorted(folder.glob("data/*.parquet"))
    for number, path in enumerate(files):
        name = f"train-{number:05}-of-{len(files):05}.parquet"
        check(path.name == name, f"{path}: expected {name}")
        table = pq.read_table(path)
        table.validate(full=True)
        check(table.schema.equals(SCHEMA), f"{path}: schema is\n{table.schema}")
        for metadata in (table.schema.metadata, pq.read_metadata(path).metadata):
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            check(features["image"] == {"_type": "Image"}, f"{path}: {features}")
            check(features["label"] == {"names": names, "_type": "ClassLabel"}, f"{path}: {features}")
        for row in table.to_pylist():
            image = row["image"]
            found[image["bytes"], image["path"], row["label"], row["identity"]] += 1
    check(found == wanted, f"{len(found - wanted)} rows differ from the files in {faces}")
    print(
        f"pyarrow {pa.__version__} reads {folder}: {len(files)} files, {found.total()} rows, "
        f"{len(names)} classes, all columns equal"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
