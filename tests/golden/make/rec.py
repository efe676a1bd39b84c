#!/usr/bin/env python3
"""Writes RecordIO data sets of made-up pictures, and a manifest of every record in them.

usage: rec.py FOLDER

The format, as MXNet's `recordio` and `dmlc` define it: a record is the magic word, a word with the
part's kind in its upper 3 bits and its length in the others, the part, and zeros up to a multiple of
4. A payload that holds the magic word at a multiple of 4 is cut there into parts (kinds 1, 2, 3), and
that word is left out. A payload begins with flag (u32), label (f32), id and id2 (u64); a flag above 0
is the number of f32 labels that follow.
"""

import hashlib
import json
import pathlib
import struct
import sys

from pictures import encoded, smooth

MAGIC = struct.pack("<I", 0xCED7230A)


class Writer:
    def __init__(self, folder):
        self.folder, self.rec, self.index, self.records = folder, b"", "", []

    def write(self, key, labels, body, id=None, id2=0):
        """`labels`: a number, or a list of numbers."""
        id = key if id is None else id
        is_list = isinstance(labels, list)
        flag = len(labels) if is_list else 0
        header = struct.pack("<IfQQ", flag, 0.0 if is_list else labels, id, id2)
        array = labels if is_list else []
        payload = header + struct.pack(f"<{len(array)}f", *array) + body
        offset, parts = len(self.rec), self.parts(payload)
        for kind, part in parts:
            self.rec += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part
        self.rec += bytes(-len(payload) % 4)
        self.index += f"{key}\t{offset}\n"
        rounded = [struct.unpack("<f", struct.pack("<f", label))[0] for label in (array or [labels])]
        self.records.append({
            "key": key, "offset": offset, "flag": flag, "labels": rounded, "id": id, "id2": id2,
            "payload_bytes": len(payload), "payload_sha256": sha256(payload),
            "body_bytes": len(body), "body_sha256": sha256(body),
            "parts": [[kind, len(part)] for kind, part in parts],
        })

    @staticmethod
    def parts(payload):
        cuts = [at for at in range(0, len(payload) - 3, 4) if payload[at:at + 4] == MAGIC]
        if not cuts:
            return [(0, payload)]
        starts = [0] + [at + 4 for at in cuts]
        kinds = [1] + [2] * (len(cuts) - 1) + [3]
        return [(kind, payload[start:end]) for kind, start, end in zip(kinds, starts, cuts + [None])]

    def finish(self, property=None):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "train.rec").write_bytes(self.rec)
        (self.folder / "train.idx").write_text(self.index)
        if property:
            (self.folder / "property").write_text(property)
        return {
            "rec_bytes": len(self.rec), "rec_sha256": sha256(self.rec),
            "records_in_index_order": self.records,
        }


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def jpeg(seed):
    return encoded(smooth(seed), quality=85)


# Images of each class.
CLASSES = [3, 1, 4, 2]


def identities(folder):
    """As the historical face2rec2: images, the range of every class, and record 0 last."""
    out, key = Writer(folder), 1
    ranges = []
    for label, n in enumerate(CLASSES):
        ranges.append((key, key + n))
        for _ in range(n):
            out.write(key, [float(label), 1.0], jpeg(key))
            key += 1
    first_identity = key
    for start, end in ranges:
        out.write(key, [float(start), float(end)], b"")
        key += 1
    out.write(0, [float(first_identity), float(key)], b"")
    return out.finish("4,112,112\n")


def headed(folder):
    """As `identities`, with one label an image, and an id2 of 1 in record 0."""
    out, key = Writer(folder), 1
    ranges = []
    for label, n in enumerate(CLASSES):
        ranges.append((key, key + n))
        for _ in range(n):
            out.write(key, float(label), jpeg(key))
            key += 1
    first_identity = key
    for start, end in ranges:
        out.write(key, [float(start), float(end)], b"")
        key += 1
    out.write(0, [float(first_identity), float(key)], b"", id2=1)
    return out.finish("4,112,112\n")


def sequential(folder):
    """One label an image, keys from 0, and nothing else."""
    out, key = Writer(folder), 0
    for label, n in enumerate(CLASSES):
        for _ in range(n):
            out.write(key, float(label), jpeg(key))
            key += 1
    return out.finish("4,112,112\n")


def shuffled(folder):
    """As im2rec writes a shuffled list: keys in another order than they are counted in."""
    out = Writer(folder)
    labels = [label for label, n in enumerate(CLASSES) for _ in range(n)]
    for i in range(len(labels)):
        key = (i * 7 + 3) % len(labels)
        out.write(key, float(labels[key]), jpeg(key))
    return out.finish()


def labels(folder):
    """Labels of every number, keys neither dense nor sorted, ids of their own."""
    out = Writer(folder)
    kinds = [lambda n: [n, 1.0], lambda n: n, lambda n: [n] + [0.25 * k for k in range(5)],
             lambda n: [n], lambda n: [n] + [-1.5 * k for k in range(14)]]
    for i, key in enumerate([40, 3, 10, 38, 17, 24, 1000, 31, 5, 6]):
        label = 16777217.0 if i == 7 else float(i // 4)
        out.write(key, kinds[i % len(kinds)](label), jpeg(i), id=2000 + i, id2=i % 2)
    return out.finish()


def split(folder):
    """Payloads that hold the magic word."""
    out, m = Writer(folder), MAGIC
    picture = jpeg(1)
    # A comment right behind the start of the image: 24 + 2 + 4 bytes lie before its text.
    text = b"ab" + m + b"x"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text
    bodies = [
        b"plain", b"twelve bytes" + m + b"behind", m + b"first", b"last" + m, m,
        b"mid1" + m + b"mid2" + m + b"end", b"eightby." + m + m + b"pair", b"x" + m + b"shifted",
        (b"part" + m) * 5, b"", picture[:2] + comment + picture[2:], m + b"\0", m[:3], m + m,
        bytes(4096) + m + bytes(4097),
    ]
    for key, body in enumerate(bodies):
        out.write(key, float(key % 5), body)
    magic = struct.unpack("<I", m)[0]
    # In the id, in an id2 beyond 63 bits, and in a label.
    out.write(100, 1.0, b"id", id=magic)
    out.write(101, [2.0, struct.unpack("<f", m)[0]], b"label", id2=magic << 32)
    return out.finish()


def main(folder):
    cases = [identities, headed, sequential, shuffled, labels, split]
    files = {case.__name__: case(folder / case.__name__) for case in cases}
    text = json.dumps({"files": files}, separators=(",", ":"))
    (folder / "manifest.json").write_text(text + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
