"""Makes the pictures of this folder with Pillow, and beside each what Pillow shows of it as RGB.

usage: python3 make.py   (Pillow 12, numpy)
"""

import pathlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 37, 29


def picture():
    """A smooth picture without any symmetry, so that each turn of it looks different."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red = x * 255 // WIDTH
    green = y * 255 // HEIGHT
    blue = (x * 3 + y * 5) % 256 // 2 + 40
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def save(name, image, shown=None, **options):
    path = HERE / name
    image.save(path, **options)
    if shown is None:
        with Image.open(path) as opened:
            shown = np.asarray(opened.convert("RGB"))
    assert shown.shape == (HEIGHT, WIDTH, 3), name
    (HERE / f"{name}.rgb").write_bytes(shown.astype(np.uint8).tobytes())


def main():
    rgb = picture()
    image = Image.fromarray(rgb)
    grey = image.convert("L")
    alpha = Image.fromarray(np.dstack([rgb, np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 256]).astype(np.uint8))
    save("baseline.jpg", image, quality=90)
    save("baseline444.jpg", image, quality=90, subsampling=0)
    save("progressive.jpg", image, quality=90, progressive=True)
    save("progressive-grey.jpg", grey, quality=90, progressive=True)
    save("grey.jpg", grey, quality=90)
    save("restart.jpg", image, quality=90, restart_marker_blocks=2)
    save("cmyk.jpg", image.convert("CMYK"), quality=95, subsampling=0)
    save("rgb.jpg", image, quality=95, keep_rgb=True)
    save("rgb.png", image)
    save("grey.png", grey)
    save("palette.png", image.quantize(64))
    save("palette-transparent.png", image.quantize(64), transparency=3)
    save("alpha.png", alpha)
    save("grey-alpha.png", alpha.convert("LA"))
    save("one-bit.png", grey.convert("1"))
    sixteen = grey_ramp()
    save("grey16.png", Image.fromarray(sixteen), shown=np.repeat(((sixteen.astype(np.uint32) + 128) // 257)[..., None], 3, axis=-1))
    save("lossy.webp", image, quality=90)
    save("lossless.webp", image, lossless=True)
    save("alpha.webp", alpha, lossless=True, exact=True)
    second = Image.fromarray(255 - rgb)
    save("animated.webp", image, save_all=True, append_images=[second], lossless=True)
    save("animated.png", image, save_all=True, append_images=[second])
    save("rgb.bmp", image)
    save("palette.bmp", image.quantize(64))
    save("rgb.ppm", image)
    save("grey.pgm", grey)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        # Its pixels are those of rgb.png, turned.
        image.save(HERE / f"turned-{orientation}.webp", lossless=True, exif=exif)


def grey_ramp():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (x * 1700 + y * 97 + 11).astype(np.uint16)


if __name__ == "__main__":
    main()
