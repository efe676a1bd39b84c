"""Packs a folder of crops with another tool and reads it back.

Usage: bench_pack.py TOOL CROPS OUT, TOOL one of WebDataset, LitData, Streaming. Prints JSON: images,
bytes on disk, and images/s of packing, reading, and reading with decoding. `scripts/bench-pack` runs
it beside pfc-ingest. Imports do not count, the listing of the folder does.
"""

import io
import json
import os
import pathlib
import sys
import time

import numpy as np
from PIL import Image

SHARD_BYTES = 128 << 20


def listed(crops):
    """(path, label) of every image."""
    people = sorted(os.scandir(crops), key=lambda entry: entry.name)
    people = [entry.path for entry in people if entry.is_dir()]
    return [
        (entry.path, label) for label, person in enumerate(people) for entry in os.scandir(person)
    ]


def content(path):
    with open(path, "rb") as file:
        return file.read()


class WebDataset:
    def __init__(self, out):
        import webdataset

        self.webdataset, self.out = webdataset, out

    def pack(self, crops):
        self.out.mkdir()
        pattern = str(self.out / "%06d.tar")
        with self.webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as writer:
            for i, (path, label) in enumerate(listed(crops)):
                writer.write({"__key__": f"{i:09}", "jpg": content(path), "cls": label})

    def read(self):
        shards = sorted(map(str, self.out.glob("*.tar")))
        for sample in self.webdataset.WebDataset(shards, shardshuffle=False):
            yield sample["jpg"], int(sample["cls"])


def labelled(item):
    """What LitData stores for an image; its workers look it up by name."""
    path, label = item
    return {"image": content(path), "label": label}


class LitData:
    def __init__(self, out):
        import litdata

        self.litdata, self.out = litdata, out

    def pack(self, crops):
        self.litdata.optimize(
            fn=labelled,
            inputs=listed(crops),
            output_dir=str(self.out),
            chunk_bytes=SHARD_BYTES,
            num_workers=os.cpu_count(),
            verbose=False,
        )

    def read(self):
        for sample in self.litdata.StreamingDataset(str(self.out)):
            yield sample["image"], int(sample["label"])


class Streaming:
    def __init__(self, out):
        import streaming

        self.streaming, self.out = streaming, out

    def pack(self, crops):
        columns = {"image": "bytes", "label": "int"}
        writer = self.streaming.MDSWriter(
            out=str(self.out), columns=columns, size_limit=SHARD_BYTES, progress_bar=False
        )
        with writer:
            for path, label in listed(crops):
                writer.write({"image": content(path), "label": label})

    def read(self):
        dataset = self.streaming.StreamingDataset(local=str(self.out), batch_size=1, shuffle=False)
        for sample in dataset:
            yield sample["image"], int(sample["label"])


def timed(work):
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def main():
    tool, crops, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    tool = {"WebDataset": WebDataset, "LitData": LitData, "Streaming": Streaming}[tool](out)
    _, pack_s = timed(lambda: tool.pack(crops))
    n_images, read_s = timed(lambda: sum(bool(image) for image, _ in tool.read()))

    def decode(image):
        return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))

    n_decoded, decode_s = timed(lambda: sum(bool(decode(image).size) for image, _ in tool.read()))
    assert n_decoded == n_images, f"{n_images} images read, {n_decoded} decoded"
    figures = {
        "images": n_images,
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "pack": n_images / pack_s,
        "read": n_images / read_s,
        "decode": n_images / decode_s,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
