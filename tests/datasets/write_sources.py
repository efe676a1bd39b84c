"""Writes one small set of made-up pictures in the formats of other programs, by their own writers.

    python -m venv env
    env/bin/pip install pillow lmdb tfrecord crc32c pyarrow numpy typing_extensions
    env/bin/pip install --no-deps mosaicml-streaming litdata
    env/bin/python tests/datasets/write_sources.py crates/sources/tests/zoo

Streaming and LitData want PyTorch for what is not used here: an empty module stands for it.
"""

import io
import json
import pathlib
import pickle
import shutil
import site
import struct
import sys
import tarfile
import types
import zipfile
from unittest import mock

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather
from PIL import Image
from tfrecord.writer import TFRecordWriter

OUT = pathlib.Path(sys.argv[1])
shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)


def picture(seed):
    image = Image.new("RGB", (16, 16))
    image.putdata([((seed * 37 + 9 * x) % 256, (seed * 91 + 11 * y) % 256, seed * 20 % 256)
                   for y in range(16) for x in range(16)])
    bytes_ = io.BytesIO()
    image.save(bytes_, "JPEG", quality=60)
    return bytes_.getvalue()


FACES = [(f"p{i % 3}/{i}.jpg", i % 3, picture(i)) for i in range(7)]
FACES.sort()

faces = OUT / "faces"
for name, _, data in FACES:
    (faces / name).parent.mkdir(parents=True, exist_ok=True)
    (faces / name).write_bytes(data)

# Archives.
with zipfile.ZipFile(OUT / "stored.zip", "w") as archive:
    for name, _, data in FACES:
        archive.writestr(name, data)
with zipfile.ZipFile(OUT / "wrapped.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.mkdir("set")
    for name, _, data in FACES:
        archive.writestr("set/faces/" + name, data)
with open(OUT / "large.zip", "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, _, data in FACES:
        with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
            entry.write(data)
for ending, mode in [("tar", ""), ("tgz", "gz"), ("tar.bz2", "bz2"), ("tar.xz", "xz")]:
    with tarfile.open(OUT / f"faces.{ending}", f"w:{mode}") as archive:
        for name, _, data in FACES:
            info = tarfile.TarInfo("./faces/" + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

# LMDB: a label before the image, as CVLface's tools write it; images and labels under keys of their own;
# Caffe's Datum; pickled pairs; paths.
def database(name, pairs, **options):
    with lmdb.open(str(OUT / name), map_size=1 << 20, **options) as env, env.begin(write=True) as write:
        for key, value in pairs:
            write.put(key, value)
    (OUT / (name + "-lock" if "subdir" in options else name + "/lock.mdb")).unlink(missing_ok=True)


labelled = [(f"{i:08d}".encode(), struct.pack("<i", label) + data) for i, (_, label, data) in enumerate(FACES)]
database("label.lmdb", labelled + [(b"__len__", b"7"), (b"__num_classes__", b"3"),
                                   (b"__label_map__", json.dumps({"p0": 0, "p1": 1, "p2": 2}).encode())])
numbered = [(f"image-{i:09d}".encode(), data) for i, (_, _, data) in enumerate(FACES)]
numbered += [(f"label-{i:09d}".encode(), str(label).encode()) for i, (_, label, _) in enumerate(FACES)]
database("numbered.lmdb", numbered + [(b"num-samples", b"7")], subdir=False)


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def datum(label, data):
    return b"\x08\x03\x10\x10\x18\x10\x22" + varint(len(data)) + data + b"\x28" + varint(label) + b"\x38\x01"


database("datum.lmdb", [(f"{i:08d}".encode(), datum(label, data)) for i, (_, label, data) in enumerate(FACES)])
database("pickled.lmdb", [(str(i).encode(), pickle.dumps((data, label))) for i, (_, label, data) in enumerate(FACES)]
         + [(b"__len__", pickle.dumps(7))])
database("paths.lmdb", [(name.encode(), data) for name, _, data in FACES])

# TFRecord, with the features of arcface-tf2 and of TFace.
def records(name, rows):
    writer = TFRecordWriter(str(OUT / name))
    for row in rows:
        writer.write(row)
    writer.close()


records("arcface.tfrecord", [
    {"image/source_id": (label, "int"), "image/filename": (name.encode(), "byte"), "image/encoded": (data, "byte")}
    for name, label, data in FACES])
records("tface-00000.tfrecord", [{"image": (data, "byte"), "label": (label, "int")} for _, label, data in FACES])

# MDS and LitData.
class Any:
    def __init__(self, *args, **kwargs):
        pass

    def __bool__(self):
        return False


class Empty(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Any,), {}) if name[0].isupper() else mock.MagicMock(name=name)


class Finder:
    """Makes empty modules of what is not installed."""

    NAMES = ("torch", "lightning_utilities", "boto3", "botocore", "torchvision", "transformers", "azure", "google",
             "oci", "paramiko", "snappy", "Brotli", "brotli", "zstd", "xxhash", "tqdm", "matplotlib", "requests",
             "filelock", "obstore", "lightning_sdk", "tifffile", "databricks", "catalogue", "tenacity", "cramjam", "psutil",
             "polars", "fsspec", "s3fs", "cryptography", "urllib3")

    def find_spec(self, name, path=None, target=None):
        from importlib.machinery import ModuleSpec
        if name.split(".")[0] in self.NAMES:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Finder())
# The packages themselves import all that they can do.
def enter(package):
    module = types.ModuleType(package.replace("/", "."))
    module.__path__ = [str(pathlib.Path(site.getsitepackages()[0]) / package)]
    sys.modules[module.__name__] = module


for package in ["streaming", "streaming/base"]:
    enter(package)
from streaming.base.format.mds.writer import MDSWriter  # noqa: E402

with MDSWriter(out=str(OUT / "mds"), columns={"image": "bytes", "label": "int", "name": "str"},
               size_limit=4000) as writer:
    for name, label, data in FACES:
        writer.write({"image": data, "label": label, "name": name})

import torch.utils.data  # noqa: E402

torch.utils.data.get_worker_info = lambda: None
torch.cuda.is_available = torch.distributed.is_available = torch.distributed.is_initialized = lambda: False
for package in ["litdata", "litdata/streaming"]:
    enter(package)
from litdata.streaming.cache import BinaryWriter  # noqa: E402

writer = BinaryWriter(str(OUT / "litdata"), chunk_size=4)
for i, (name, label, data) in enumerate(FACES):
    writer[i] = {"image": data, "class": label, "name": name}
writer.done()
(OUT / "litdata/0.index.json").rename(OUT / "litdata/index.json")  # What merging does for one writer.

# Parquet, by columns that people have.
labels = pa.array([label for _, label, _ in FACES])
images = pa.array([data for _, _, data in FACES], pa.binary())
paths = pa.array([name for name, _, _ in FACES])
both = pa.array([{"bytes": data, "path": name} for name, _, data in FACES])
far = pa.array([{"bytes": None, "path": name} for name, _, _ in FACES],
               pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
pq.write_table(pa.table({"photo": images, "klass": labels}), OUT / "binary.parquet")
pq.write_table(pa.table({"image": both, "label": labels}), OUT / "struct.parquet")
pq.write_table(pa.table({"file_name": paths, "label": labels}), OUT / "paths.parquet")
pq.write_table(pa.table({"image": far, "label": labels}), OUT / "far.parquet")
for codec in ["lz4", "zstd"]:  # What is refused.
    feather.write_feather(pa.table({"image": images[:1], "label": labels[:1]}), OUT / f"{codec}.feather", compression=codec)
features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["p0", "p1", "p2"]}}}}
named = pa.table({"image": both, "label": labels}).replace_schema_metadata({"huggingface": json.dumps(features)})
for split, rows in [("train", named.slice(0, 4)), ("test", named.slice(4))]:
    (OUT / "hub/data").mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, OUT / f"hub/data/{split}-00000-of-00001.parquet")
    folder = OUT / "dict" / split
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
    (folder / "state.json").write_text("{}")
(OUT / "dict/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
