#!/usr/bin/env python3
"""Writes a small made-up MegaFace folder and its figures, by brute force in float64.

usage: megaface.py FOLDER

The devkit compares by L2. For every ordered pair of a probe and a mate (another image of that person),
the rank is the number of distractors strictly nearer to the probe than the mate. CMC(k) is the share of
pairs with a rank below k. TAR at FAR: of the n distances of probes to distractors, k = floor(far * n)
may be accepted, and a pair is accepted whose distance is strictly below the (k+1)-th smallest.

Cleaning adds a component: 0, but 100 for a noisy distractor. A noisy probe becomes the sum of its
person's clean images, each number moved by up to 0.001, and normalised. That movement is random, so
a seed is looked for with which it changes no figure.
"""

import json
import pathlib
import struct
import sys

import numpy as np
from safetensors.numpy import save_file

ALGORITHM, DIM, PEOPLE, DISTRACTORS = "made", 12, 6, 60
SIZES = [10, 60]
FARS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
FAR_AWAY = 100.0


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class World:
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        counts = 3 + np.arange(PEOPLE) % 3
        self.person = np.repeat(np.arange(PEOPLE), counts)
        centres = unit(rng.normal(size=(PEOPLE, DIM)))
        probes = unit(centres[self.person] + 0.22 * rng.normal(size=(len(self.person), DIM)))
        # Labels that are wrong: the features are another person's.
        self.noisy = np.array([4, 12])
        probes[self.noisy] = unit(centres[[3, 0]] + 0.2 * rng.normal(size=(2, DIM)))
        distractors = unit(rng.normal(size=(DISTRACTORS, DIM)))
        # Some that are probes' people after all.
        self.far = np.array([5, 17, 41])
        distractors[self.far] = unit(centres[[0, 2, 5]] + 0.15 * rng.normal(size=(3, DIM)))
        self.probes, self.distractors = probes.astype(np.float32), distractors.astype(np.float32)
        self.names = [f"Person_{p}/Person_{p}_{100 + i}.png" for i, p in enumerate(self.person)]
        self.places = [f"{100 + i % 7}/{i % 7}@N0{i % 3}/{1000 + 37 * i}_{i % 4}.jpg"
                       for i in range(DISTRACTORS)]
        order = np.random.default_rng(seed + 1).permutation(DISTRACTORS)
        self.galleries = {size: order[:size] if size < DISTRACTORS else np.arange(DISTRACTORS)
                          for size in SIZES}

    def cleaned(self, noise_seed):
        rng = np.random.default_rng(noise_seed)
        probes = np.hstack([self.probes, np.zeros((len(self.person), 1), np.float32)])
        for i in self.noisy:
            mates = (self.person == self.person[i]) & ~np.isin(np.arange(len(self.person)), self.noisy)
            total = self.probes[mates].sum(0) + rng.uniform(-0.001, 0.001, DIM)
            probes[i, :DIM] = unit(total).astype(np.float32)
        distractors = np.hstack([self.distractors, np.zeros((DISTRACTORS, 1), np.float32)])
        distractors[self.far, DIM] = FAR_AWAY
        return probes, distractors

    def pairs(self):
        same = self.person[:, None] == self.person[None, :]
        return np.argwhere(same & ~np.eye(len(self.person), dtype=bool))


def distances(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def ranks_and_mates(world, probes, distractors):
    to_distractors, to_probes = distances(probes, distractors), distances(probes, probes)
    pairs = world.pairs()
    mates = to_probes[pairs[:, 0], pairs[:, 1]]
    ranks = (to_distractors[pairs[:, 0]] < mates[:, None]).sum(1)
    return pairs, ranks, mates, to_distractors


def figures(world, probes, distractors):
    pairs, ranks, mates, to_distractors = ranks_and_mates(world, probes, distractors)
    negatives = np.sort(to_distractors.ravel())
    best = np.full(len(world.person), np.iinfo(np.int64).max)
    np.minimum.at(best, pairs[:, 0], ranks)
    rows = []
    for far in FARS:
        allowed = int(np.floor(far * len(negatives)))
        threshold = negatives[allowed]
        rows.append({
            "far": far, "false_accepts_allowed": allowed, "distance_threshold": threshold,
            "tar": float((mates < threshold).mean()),
        })
    gaps = np.abs(to_distractors[pairs[:, 0]] - mates[:, None])
    return {
        "pairs": len(pairs), "negatives": len(negatives),
        "cmc": [float((ranks < k).mean()) for k in range(1, 11)],
        "rank1_hits": int((ranks == 0).sum()),
        "cmc_of_each_probes_best_mate": [float((best < k).mean()) for k in range(1, 11)],
        "tar_at_far": rows,
        "smallest_gap_between_a_mate_and_a_distractor": float(gaps.min()),
    }


def results(world, noise_seed):
    found = {}
    for size, rows in world.galleries.items():
        found[f"raw_{size}"] = figures(world, world.probes, world.distractors[rows])
        probes, distractors = world.cleaned(noise_seed)
        found[f"clean_{size}"] = figures(world, probes, distractors[rows])
    return found


def is_steady(world):
    """Whether every share is the same whatever the noise, and no two distances nearly equal."""
    shares = lambda r: {name: (c["cmc"], c["cmc_of_each_probes_best_mate"],
                               [row["tar"] for row in c["tar_at_far"]]) for name, c in r.items()}
    first = results(world, 0)
    gap = min(c["smallest_gap_between_a_mate_and_a_distractor"] for c in first.values())
    is_hard = 0.3 < first["raw_60"]["cmc"][0] < 0.9 and first["clean_60"]["cmc"][0] < 1
    return gap > 1e-5 and is_hard and all(
        shares(results(world, seed)) == shares(first) for seed in range(1, 40))


def feature(row):
    return struct.pack("<4i", len(row), 1, 4, 5) + row.astype("<f4").tobytes()


def main(folder):
    world = next(world for world in map(World, range(10_000)) if is_steady(world))
    for part, paths, rows in [("facescrub", world.names, world.probes),
                              ("megaface", world.places, world.distractors)]:
        for path, row in zip(paths, rows):
            file = folder / "feature_out" / part / f"{path}_{ALGORITHM}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(feature(row))
    data, lists = folder / "data", folder / "templatelists"
    data.mkdir(exist_ok=True)
    lists.mkdir(exist_ok=True)
    lines = lambda name, rows: (data / name).write_text("\n".join(rows) + "\n")
    lines("facescrub_lst", world.names)
    lines("megaface_lst", world.places)
    noisy = [world.names[i] for i in world.noisy]
    lines("facescrub_noises.txt", ["#made up"] + [name.split("/")[1] for name in noisy] + ["Nobody_1.png"])
    far = [world.places[i] for i in world.far]
    lines("megaface_noises.txt", ["#made up", f"2\t{far[0]}"] + far[1:])
    ids = [name.split("/")[0] for name in world.names]
    probes = {"path": world.names, "id": ids}
    (lists / "facescrub_features_list.json").write_text(json.dumps(probes))
    for size, rows in world.galleries.items():
        gallery = {"path": [world.places[i] for i in rows]}
        (lists / f"megaface_features_list.json_{size}_1").write_text(json.dumps(gallery))
    clean_probes, clean_distractors = world.cleaned(0)
    save_file({"facescrub": clean_probes, "megaface": clean_distractors},
              folder / "feature_out_clean.safetensors")
    tensors = {}
    for state, (p, d) in {"raw": (world.probes, world.distractors),
                          "clean": (clean_probes, clean_distractors)}.items():
        _, ranks, mates, _ = ranks_and_mates(world, p, d)
        tensors[f"{state}.ranks"] = ranks.astype(np.int32)
        tensors[f"{state}.mate_distances"] = mates
    save_file(tensors, folder / "pairs.safetensors")
    expected = {
        "algo": ALGORITHM, "dim": DIM, "noisy_probes": noisy, "noisy_distractors": far,
        "results": results(world, 0),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
