"""Reads a packed folder of crops once through a torch DataLoader.

Usage: bench_python.py TOOL CROPS PACKED WORKERS BATCH. Prints JSON: images read, and images/s from the
first batch on. `scripts/bench-python` runs it.
"""

import io
import json
import pathlib
import sys
import time

import numpy as np
import torch
from bench_pack import listed
from PIL import Image
from torch.utils.data import DataLoader


def decode(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


class Folder:
    """An image folder as torchvision's, with pixels as arrays."""

    def __init__(self, crops):
        self.files = listed(crops)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        path, label = self.files[i]
        with open(path, "rb") as file:
            return np.asarray(Image.open(file).convert("RGB")), label


def of_webdataset(sample):
    return decode(sample["jpg"]), int(sample["cls"])


def of_dictionary(sample):
    return decode(sample["image"]), int(sample["label"])


def collate_dictionaries(samples):
    return torch.utils.data.default_collate([of_dictionary(sample) for sample in samples])


def loader(tool, crops, packed, workers, batch):
    """Batches of (images, labels), in random order where the tool has one at no cost of its own."""
    options = {"batch_size": batch, "num_workers": workers}
    if tool == "pfc":
        import pfc
        import pfc.torch

        return DataLoader(
            pfc.Dataset(packed), shuffle=True, collate_fn=pfc.torch.collate, **options
        )
    if tool == "pfc batches":
        import pfc
        import pfc.torch

        # Its threads are of this process; as many as there would be workers.
        batches = pfc.Dataset(packed, threads=max(1, workers)).batches(batch, seed=1)
        return map(pfc.torch.tensors, batches)
    if tool == "folder with PIL":
        return DataLoader(Folder(crops), shuffle=True, **options)
    if tool == "WebDataset":
        import webdataset

        shards = sorted(map(str, packed.glob("*.tar")))
        # A shard is read by one worker, and there may be fewer shards than workers; then each goes
        # through all of them, which costs little, and decodes its part.
        is_split = len(shards) >= workers
        splitter = webdataset.split_by_worker if is_split else iter
        dataset = webdataset.WebDataset(shards, shardshuffle=False, workersplitter=splitter)
        if not is_split:
            dataset = dataset.compose(part_of_worker)
        return DataLoader(dataset.map(of_webdataset), **options)
    if tool == "LitData":
        import litdata

        dataset = litdata.StreamingDataset(str(packed), shuffle=True)
        return litdata.StreamingDataLoader(dataset, collate_fn=collate_dictionaries, **options)
    import streaming

    dataset = streaming.StreamingDataset(local=str(packed), batch_size=batch, shuffle=True)
    return DataLoader(dataset, collate_fn=collate_dictionaries, **options)


def part_of_worker(source):
    """The samples whose turn it is."""
    info = torch.utils.data.get_worker_info()
    index, n = (info.id, info.num_workers) if info else (0, 1)
    yield from (item for i, item in enumerate(source) if i % n == index)


def main():
    tool, crops, packed = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    workers, batch = int(sys.argv[4]), int(sys.argv[5])
    torch.set_num_threads(1)
    n_images, first, begin = 0, 0, None
    for images, labels in loader(tool, crops, packed, workers, batch):
        assert images.dtype == torch.uint8 and images.shape[1:] == (112, 112, 3)
        assert len(images) == len(labels)
        n_images += len(images)
        if begin is None:
            first, begin = len(images), time.perf_counter()
    rate = (n_images - first) / (time.perf_counter() - begin)
    print(json.dumps({"images": n_images, "images_per_second": rate}))


if __name__ == "__main__":
    main()
