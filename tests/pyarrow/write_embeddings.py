#!/usr/bin/env python3
"""Writes embeddings of a packed set as pyarrow stores them, in no order, with names; everybody on an
axis of their own, but the second identity on that of the first.

usage: write_embeddings.py SET OUT
Writes OUT/fixed.arrow (fixed-size lists of float) and OUT/lists.arrow (lists of double).
"""

import pathlib
import sys

import pyarrow as pa
import pyarrow.ipc as ipc

AXES = 16


def main(dataset, out):
    tables = [ipc.open_file(pa.memory_map(str(p))).read_all() for p in sorted((dataset / "shards").glob("*.arrow"))]
    table = pa.concat_tables(tables)
    rows = sorted(zip(table["source"].to_pylist(), table["label"].to_pylist()), reverse=True)
    embeddings = [[1.0 if axis == max(label, 1) else 0.0 for axis in range(AXES)] for _, label in rows]
    kinds = {"fixed": pa.list_(pa.float32(), AXES), "lists": pa.list_(pa.float64())}
    for name, kind in kinds.items():
        column = pa.array(embeddings, kind)
        written = pa.table({"source": pa.array([source for source, _ in rows]), "embedding": column})
        with ipc.new_file(str(out / f"{name}.arrow"), written.schema) as file:
            # Several batches, as large files have.
            file.write_table(written, max_chunksize=7)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
