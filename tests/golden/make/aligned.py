#!/usr/bin/env python3
"""Cuts faces out of made-up pictures: five points, a matrix, and the crop that OpenCV makes with it.

usage: aligned.py FOLDER

The matrix is the similarity (turn, scale and shift) that brings the points nearest to the template in
the sense of least squares, here solved as linear equations in its four numbers. The crop is OpenCV
4.10's `warpAffine`: bilinear, with black outside of the picture.
"""

import json
import pathlib
import sys

import cv2
import numpy as np

from pictures import decoded, encoded, flat, smooth

# ArcFace's, for crops of 112×112.
TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
            [70.7299, 92.2041]]


def similarity(points):
    """The 2×3 matrix from source to crop."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, TEMPLATE):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    (a, b, tx, ty), *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    return np.array([[a, -b, tx], [b, a, ty]])


def picture(i, width, height):
    return smooth(300 + i, width, height) // 2 + flat(300 + i, width, height) // 2


def main(folder):
    (folder / "source").mkdir(parents=True, exist_ok=True)
    (folder / "crop").mkdir(exist_ok=True)
    rng, images = np.random.default_rng(7), []
    # Size of the picture, and of its face: turn in degrees, scale, and place of the crop's centre.
    cases = [(160, 150, 0, 1.0, 80, 75), (150, 170, 12, 1.3, 75, 90), (180, 160, -35, 0.8, 85, 70),
             (140, 140, 60, 1.1, 40, 60), (170, 150, -8, 1.6, 90, 80), (130, 160, 178, 0.9, 65, 100)]
    for i, (width, height, turn, scale, x, y) in enumerate(cases):
        t = np.deg2rad(turn)
        turned = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        points = (np.array(TEMPLATE) - 56) @ turned.T * scale + [x, y] + rng.normal(0, 1.2, (5, 2))
        points = points.astype(np.float32).astype(float)
        is_png = i == 2
        kind = {"kind": "PNG", "optimize": True} if is_png else {"quality": 85}
        content = encoded(picture(i, width, height), **kind)
        source, crop = f"source/{i:02}.{'png' if is_png else 'jpg'}", f"crop/{i:02}.png"
        matrix = similarity(points)
        out = cv2.warpAffine(decoded(content), matrix, (112, 112), borderValue=0)
        (folder / source).write_bytes(content)
        (folder / crop).write_bytes(encoded(out, "PNG", optimize=True))
        images.append({"source": source, "crop": crop, "landmarks": points.tolist(),
                       "matrix": matrix.tolist()})
    made_with = {"opencv": cv2.__version__, "numpy": np.__version__}
    description = {"template": TEMPLATE, "images": images, "made_with": made_with}
    (folder / "aligned.json").write_text(json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
