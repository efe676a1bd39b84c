"""Pictures made of arithmetic: smooth colours and a few flat shapes. None shows a person."""

import io

import numpy as np
from PIL import Image


def smooth(seed, width=112, height=112):
    """Waves of colour, `[height, width, 3]` u8; small as a JPEG file."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = []
    for _ in range(3):
        (fx, fy), phase = rng.uniform(0.3, 1.6, 2), rng.uniform(0, 6.28)
        wave = np.sin(6.28 * (fx * x + fy * y) + phase)
        planes.append(rng.uniform(90, 160) + rng.uniform(30, 80) * wave)
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)


def flat(seed, width=112, height=112):
    """Rectangles of one colour each, `[height, width, 3]` u8; small as a PNG file."""
    rng = np.random.default_rng(seed)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = rng.integers(0, 256, 3)
    for _ in range(5):
        left, top = rng.integers(0, width - 20), rng.integers(0, height - 20)
        right, bottom = left + rng.integers(10, 50), top + rng.integers(10, 50)
        picture[top:bottom, left:right] = rng.integers(0, 256, 3)
    return picture


def encoded(picture, kind="JPEG", **options):
    """The bytes of an image file."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return out.getvalue()


def decoded(content):
    """Pixels of a file as RGB."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
