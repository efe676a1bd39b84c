#!/usr/bin/env python3
"""Loads an exported verification pack with Python's pickle against the folder of faces it came from.

usage: check_bin.py FACES PACK
"""

import collections
import io
import pathlib
import pickle
import sys


class NoCode(pickle.Unpickler):
    """Refuses what could run code."""

    def find_class(self, module, name):
        sys.exit(f"error: the pickle names {module}.{name}")


def check(holds, what):
    if not holds:
        sys.exit(f"error: {what}")


def main(faces, pack):
    people = collections.defaultdict(set)
    for path in faces.glob("*/*.jpg"):
        people[path.read_bytes()].add(path.parent.name)
    content = pack.read_bytes()
    # As InsightFace loads packs, and as anybody would.
    bins, issame = pickle.loads(content, encoding="bytes")
    check((bins, issame) == pickle.loads(content), "an encoding changes what is loaded")
    check((bins, issame) == NoCode(io.BytesIO(content)).load(), "another load gives something else")
    check(type(bins) is list and type(issame) is list, f"{type(bins)}, {type(issame)}")
    check(len(bins) == 2 * len(issame), f"{len(bins)} images for {len(issame)} pairs")
    check(all(type(image) is bytes for image in bins), "an image is no bytes")
    check(all(type(same) is bool for same in issame), "a label is no bool")
    seen = set()
    fold = len(issame) // 10
    for i, same in enumerate(issame):
        left, right = bins[2 * i], bins[2 * i + 1]
        check(left in people and right in people, f"pair {i}: an image is none of {faces}")
        check(same == bool(people[left] & people[right]), f"pair {i}: the label is wrong")
        check(same == (i % fold < fold // 2), f"pair {i}: the fold is not balanced")
        check((left, right) not in seen and (right, left) not in seen, f"pair {i}: comes twice")
        seen.add((left, right))
    print(f"Python {sys.version.split()[0]} loads {pack}: {len(issame)} pairs, all labels right")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
