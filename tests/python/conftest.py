"""What the tests of the Python module share. `scripts/test-python` runs them.

Known answers come from Pillow, pyarrow, NumPy, xxhash, onnxruntime and the collection of known answers
(PFC_GOLDEN); nothing that pfc computed is one.
"""

import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys

import numpy as np
import pyarrow.ipc
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
INGEST = os.environ["PFC_INGEST"]

if "PFC_TORCH" in os.environ:
    sys.path.append(os.environ["PFC_TORCH"])

#: JPEG decoders differ by 1 to 3 levels, more at colour edges (PFC_GOLDEN's README, section bin).
JPEG_MEAN_MAX = 1.0


def ingest(*arguments):
    """Runs pfc-ingest and returns what it prints."""
    command = [INGEST, "--quiet", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def picture(seed, height=112, width=112):
    """A picture of large blobs with some noise, unlike any other, (height, width, 3) uint8."""
    random = np.random.default_rng(seed)
    blobs = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return (smooth + random.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(pixels, kind, **options):
    """The bytes of an image file, by Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def decoded(content):
    """Pixels by Pillow, (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def is_near(found, expected):
    """Whether two decoders of a JPEG may give these."""
    return np.abs(found.astype(int) - expected.astype(int)).mean() < JPEG_MEAN_MAX


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A folder of 7 people with 3 to 9 JPEG crops each, 42 in all."""
    folder = tmp_path_factory.mktemp("people")
    for person in range(7):
        (folder / f"person{person}").mkdir()
        for i in range(3 + person):
            content = encoded(picture(100 * person + i), "JPEG", quality=92)
            (folder / f"person{person}" / f"{i}.jpg").write_bytes(content)
    return folder


class Rows:
    """What pyarrow reads of a data set, in the order of its rows."""

    def __init__(self, folder):
        self.manifest = json.loads((folder / "dataset.json").read_text())
        tables = []
        for shard in self.manifest["shards"]:
            with pyarrow.memory_map(str(folder / shard["file"])) as source:
                tables.append(pyarrow.ipc.open_file(source).read_all())
        table = pyarrow.concat_tables(tables).to_pydict()
        self.images, self.labels, self.sources = table["image"], table["label"], table["source"]


@pytest.fixture(scope="session")
def packed(people, tmp_path_factory):
    """The folder packed, in several shards."""
    folder = tmp_path_factory.mktemp("packed") / "faces.pfc"
    ingest("pack", people, folder)
    return folder


@pytest.fixture(scope="session")
def rows(packed):
    return Rows(packed)


@pytest.fixture(scope="session")
def decided(people, tmp_path_factory):
    """The folder packed with copies of two images, of which decisions leave one each out."""
    folder = tmp_path_factory.mktemp("decided")
    for person in people.iterdir():
        (folder / "people" / person.name).mkdir(parents=True)
        for image in person.iterdir():
            (folder / "people" / person.name / image.name).write_bytes(image.read_bytes())
    for name in ("person3", "person5"):
        copy = folder / "people" / name / "copy.jpg"
        copy.write_bytes((people / name / "0.jpg").read_bytes())
    ingest("pack", folder / "people", folder / "faces.pfc")
    ingest("clean", folder / "faces.pfc", "--pass", "files")
    return folder / "faces.pfc"


def write_rec(folder, records):
    """train.rec and train.idx of (label, image) by MXNet's layout, written with struct alone."""
    folder.mkdir(exist_ok=True)
    rec, idx = bytearray(), []
    for key, (label, image) in enumerate(records):
        # IRHeader: flag, label, id, id2. A flag of 0 means that the label is in the header.
        payload = struct.pack("<IfQQ", 0, label, key, 0) + image
        assert b"\x0a\x23\xd7\xce" not in payload, "the magic would have to be split"
        idx.append(f"{key}\t{len(rec)}\n")
        rec += struct.pack("<II", 0xCED7230A, len(payload)) + payload
        rec += b"\0" * (-len(payload) % 4)
    (folder / "train.rec").write_bytes(rec)
    (folder / "train.idx").write_text("".join(idx))
    return folder / "train.rec"


@pytest.fixture(scope="session")
def pngs():
    """Ten encoded PNG images of 112x112 and their pixels."""
    pixels = [picture(seed) for seed in range(10)]
    return [encoded(image, "PNG") for image in pixels], pixels


@pytest.fixture(scope="session")
def rec_file(pngs, tmp_path_factory):
    labels = [5, 0, 3, 3, 1, 0, 2, 4, 5, 1]
    path = write_rec(tmp_path_factory.mktemp("rec"), list(zip(labels, pngs[0])))
    return path, labels


@pytest.fixture(scope="session")
def bin_file(pngs, tmp_path_factory):
    path = tmp_path_factory.mktemp("bin") / "lfw.bin"
    issame = [True, False, False, True, True]
    path.write_bytes(pickle.dumps((pngs[0], issame), protocol=2))
    return path, issame


def golden(area):
    """The folder of known answers of an area; skips the test where it is absent."""
    folder = pathlib.Path(os.environ.get("PFC_GOLDEN", ROOT.parent / "shared" / "golden")) / area
    if not folder.is_dir():
        if os.environ.get("PFC_REQUIRE_GOLDEN") == "1":
            pytest.fail(f"PFC_REQUIRE_GOLDEN is 1, and {area} is absent")
        pytest.skip(f"no known answers: {folder} is absent")
    return folder


def safetensors(path):
    """The arrays of a safetensors file, read with NumPy alone."""
    content = path.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    types = {"F32": "<f4", "F64": "<f8", "U8": "u1", "I64": "<i8", "I32": "<i4", "U64": "<u8"}
    arrays = {}
    for name, entry in json.loads(content[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            data = np.frombuffer(content[8 + n + begin : 8 + n + end], types[entry["dtype"]])
            arrays[name] = data.reshape(entry["shape"])
    return arrays
