"""IJB-C 1:1 in NumPy and scikit-learn, step by step as evaluation scripts in use do it.

Usage: bench_ijbc.py FOLDER. Prints JSON: seconds from features in memory to the table, the table, and
the peak memory. `scripts/bench-ijbc` runs it beside `pfc-eval ijbc`.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np
from safetensors.numpy import load_file
from sklearn.metrics import roc_curve

FARS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
PAIRS_AT_A_TIME = 100_000


def read_columns(path, columns, dtype):
    """Columns of a space-separated list, read by NumPy's own parser."""
    return np.loadtxt(path, usecols=columns, dtype=dtype, unpack=True)


def pool(faces, template_of, media_of):
    """Template features: mean over a media, sum over the template, norm 1."""
    ids = np.unique(template_of)
    features = np.zeros((len(ids), faces.shape[1]))
    for row, template in enumerate(ids):
        (members,) = np.where(template_of == template)
        media = media_of[members]
        means = []
        for one in np.unique(media):
            (frames,) = np.where(media == one)
            frames = faces[members[frames]]
            means.append(frames[0] if len(frames) == 1 else np.mean(frames, axis=0))
        features[row] = np.sum(means, axis=0)
    return ids, features / np.linalg.norm(features, axis=1, keepdims=True)


def score(ids, features, first, second):
    """Cosine similarity of each pair, some pairs at a time."""
    row_of = np.full(ids[-1] + 1, -1)
    row_of[ids] = np.arange(len(ids))
    scores = np.zeros(len(first))
    for start in range(0, len(first), PAIRS_AT_A_TIME):
        some = slice(start, start + PAIRS_AT_A_TIME)
        left, right = features[row_of[first[some]]], features[row_of[second[some]]]
        scores[some] = np.sum(left * right, axis=1)
    return scores


def table(labels, scores):
    """TAR in percent where the curve's FAR is nearest to each target, the larger of two."""
    far, tar, _ = roc_curve(labels, scores)
    far, tar = np.flipud(far), np.flipud(tar)
    return [f"{100 * tar[np.argmin(np.abs(far - target))]:.2f}" for target in FARS]


def main():
    folder = pathlib.Path(sys.argv[1])
    begin = time.perf_counter()
    template_of, media_of = read_columns(folder / "meta/ijbc_face_tid_mid.txt", (1, 2), np.int64)
    weight = read_columns(folder / "meta/ijbc_name_5pts_score.txt", (11,), np.float32)
    pairs = read_columns(folder / "meta/ijbc_template_pair_label.txt", (0, 1, 2), np.int64)
    arrays = load_file(folder / "features.safetensors")
    read = time.perf_counter()

    faces = (arrays["embs"] + arrays["embs_f"]) * weight[:, np.newaxis]
    ids, features = pool(faces, template_of, media_of)
    pooled = time.perf_counter()
    scores = score(ids, features, pairs[0], pairs[1])
    scored = time.perf_counter()
    rows = table(pairs[2], scores)
    end = time.perf_counter()
    print(
        json.dumps(
            {
                "read_s": read - begin,
                "pool_s": pooled - read,
                "score_s": scored - pooled,
                "table_s": end - scored,
                "features_to_table_s": end - read,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                "table": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
