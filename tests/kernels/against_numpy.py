"""Compares what the head's kernels compute on the card of card.h with numpy. Called by scripts/test-kernels.

Usage: against_numpy.py LIBRARY [--quick]
"""

import ctypes
import itertools
import sys

import numpy as np

from card import Card

SGD, ADAMW, ROW_ADAGRAD = 0, 1, 2
MOTIONS = {
    SGD: [0.1, 0.9, 5e-4, 0, 0, 0],
    ADAMW: [0.01, 0.9, 0.99, 1e-3, 0.999, 1.5],
    ROW_ADAGRAD: [0.1, 1e-3, 5e-4, 0, 0, 0],
}
LENGTH_LEAST = np.float32(1e-12)


def shorten(values):
    """bf16 as 16 bits, to the nearest."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widen(values):
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def stored(values, letter):
    return shorten(values) if letter == "h" else values.astype(np.float32)


def scrambled(x):
    """SplitMix64's finaliser, by which crates/random makes the key of a row."""
    x &= (1 << 64) - 1
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    x = (x ^ x >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return x ^ x >> 31


def round_at_random(values, keys):
    """What crates/head/src/centres/row.rs makes of rows under their keys."""
    low, high = (keys & 0xFFFFFFFF)[:, None], (keys >> 32)[:, None]
    mask = np.uint64(0xFFFFFFFF)
    position = np.arange(values.shape[1], dtype=np.uint64)[None, :]
    x = (low + position * np.uint64(0x9E3779B9)) & mask
    x = ((x ^ x >> 16) * np.uint64(0x7FEB352D)) & mask
    x = ((x ^ x >> 15 ^ high) * np.uint64(0x846CA68B)) & mask
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return (((bits + ((x ^ x >> 16) >> 16)) & mask) >> 16).astype(np.uint16)


def expect(found, expected, letter, what):
    """Equal to f32's precision; in bf16 up to one step, as a last bit may round the other way."""
    bound = 2e-5 if letter == "f" else 1 / 120
    error = np.abs(widen(found) - expected).max() / (np.abs(expected).max() or 1)
    assert error <= bound, f"{what}: off by {error}"


class Case:
    """A few rows of a table in one combination of formats, widths and threads."""

    def __init__(self, card, random, formats, dim, n_threads, optimizer=SGD, missed=False, rows=(1, 5, 6, 20, 39)):
        self.card, self.formats, self.dim, self.n_threads = card, formats, dim, n_threads
        self.optimizer = optimizer
        self.rows = np.array(rows, dtype=np.int64)
        self.n_state = [dim, 2 * dim, 1][optimizer]
        normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
        n = len(rows)
        self.embeddings = normal(6, dim)
        flows = np.array([1, 0, 0, 1], dtype=np.float32) + 0.1 * normal(n, 4)
        self.missed = flows if missed else None
        self.key_base = int(random.integers(0, 1 << 63, dtype=np.uint64)) * 2 + 1
        self.keys = np.array([scrambled(self.key_base + row) for row in rows], dtype=np.uint64)
        table = normal(40, dim)
        # A row that has no length, which the last of several is.
        table[39] = 0
        self.weight = stored(table, formats[0])
        self.state = stored(np.abs(normal(40, self.n_state)), formats[1])
        if missed:
            self.state[39] = 0
        self.negatives = stored(normal(n, dim), formats[2])
        # The second row has two pulls, the last has one.
        self.begin = np.zeros(n + 1, dtype=np.int32)
        self.begin[2:], self.begin[-1] = 2, 3
        self.samples = np.array([4, 0, 5], dtype=np.int32)
        self.slopes = np.array([-0.5, -0.25, -2.0], dtype=np.float32)

    def __str__(self):
        return f"{self.formats}, {self.dim} wide, optimizer {self.optimizer}, {self.n_threads} threads"

    def now(self):
        """Weight and state after what the rows have missed."""
        w, s = widen(self.weight[self.rows]), widen(self.state[self.rows])
        if self.missed is not None:
            ww, wv, vw, vv = (self.missed[:, i : i + 1] for i in range(4))
            w, s = ww * w + wv * s, vw * w + vv * s
        return w, s

    def check_unit_rows(self):
        w, _ = self.now()
        units = np.zeros_like(self.negatives)
        self.card.launch(
            f"unit_rows_{self.formats}", (len(self.rows), 1), self.n_threads, 4 * self.n_threads,
            self.weight, self.state, self.rows, self.missed, ctypes.c_int(self.dim), units,
        )
        length = np.maximum(np.linalg.norm(w, axis=1, keepdims=True), LENGTH_LEAST)
        expect(units, w / length, self.formats[2], f"unit_rows: {self}")

    def moved(self):
        """Weight and state as numpy moves them."""
        w, s = self.now()
        m = np.array(MOTIONS[self.optimizer], dtype=np.float32)
        g = widen(self.negatives).copy()
        for row in range(len(self.rows)):
            for pull in range(self.begin[row], self.begin[row + 1]):
                g[row] += self.slopes[pull] * self.embeddings[self.samples[pull]]
        length = np.linalg.norm(w, axis=1, keepdims=True)
        divisor = np.maximum(length, LENGTH_LEAST)
        along = np.where(length > LENGTH_LEAST, (g * w).sum(1, keepdims=True) / divisor**2, 0)
        g = (g - along * w) / divisor
        if self.optimizer == SGD:
            s = m[1] * s + g + m[2] * w
            return w - m[0] * s, s
        if self.optimizer == ADAMW:
            mean = m[1] * s[:, : self.dim] + (1 - m[1]) * g
            square = m[2] * s[:, self.dim :] + (1 - m[2]) * g * g
            w = m[4] * w - m[0] * mean / (np.sqrt(square) * m[5] + m[3])
            return w, np.concatenate([mean, square], 1)
        decayed = g + m[2] * w
        s = s + (decayed**2).mean(1, keepdims=True)
        return w - m[0] / (np.sqrt(s) + m[1]) * decayed, s

    def update(self):
        """Weight and state after the kernel has moved copies of them."""
        weight, state = self.weight.copy(), self.state.copy()
        self.card.launch(
            f"update_{self.formats}", (len(self.rows), 1), self.n_threads, 4 * (self.n_threads + 2 * self.dim),
            weight, state, self.rows, self.missed, ctypes.c_int(self.dim), ctypes.c_int(self.n_state),
            self.negatives, self.begin, self.samples, self.slopes, self.embeddings,
            ctypes.c_uint64(self.key_base),
            ctypes.c_int(self.optimizer), *(ctypes.c_float(x) for x in MOTIONS[self.optimizer]),
        )
        return weight, state

    def check_update(self):
        found = self.update()
        with np.errstate(over="ignore"):
            expected = self.moved()
        for i, (before, key) in enumerate([(self.weight, self.keys), (self.state, self.keys + np.uint64(1))]):
            table, letter, what = found[i], self.formats[i], f"update: {self}"
            others = np.setdiff1d(np.arange(len(before)), self.rows)
            assert (table[others] == before[others]).all(), f"{what}: it moved other rows"
            # The row without length becomes so long that beside it no error would show.
            parts = [self.rows < 39, self.rows == 39]
            for part in (part for part in parts if part.any()):
                now, then = table[self.rows[part]], expected[i][part]
                expect(now, then, letter, what)
                if letter == "h" and now.size > 50:
                    share = (now == round_at_random(then, key[part])).mean()
                    assert share > 0.97, f"{what}: {share} are rounded as the host rounds them"
        again = self.update()
        assert all((a == b).all() for a, b in zip(found, again)), f"update: {self}: other bits the second time"


def check_exponentials(card, random, letter, n_rows, n_samples, n_threads, n_blocks_y=None):
    stretch = 64
    n_stretches = n_rows // stretch + 1
    cosines = stored(random.uniform(-1.01, 1.01, (n_rows, n_samples)), letter)
    own = np.full(n_samples, -1, dtype=np.int32)
    own[: min(3, n_samples)] = [n_rows - 1, 0, n_rows // 2][: min(3, n_samples)]
    offsets = random.uniform(0, 3, n_samples).astype(np.float32)
    for filtered, offset in [(0.0, None), (0.4, offsets), (0.4, None)]:
        c = np.clip(widen(cosines), -1, 1).astype(np.float64)
        noise = (c > filtered) & (filtered > 0)
        e = np.exp(np.where(noise, 0, c) * 16 - (0 if offset is None else offset))
        for sample, row in enumerate(own):
            if row >= 0:
                e[row, sample] = 0
        found = np.zeros_like(cosines)
        sums = np.full((n_stretches, n_samples), np.nan, dtype=np.float32)
        grid = (-(-n_samples // n_threads), n_blocks_y or n_stretches)
        numbers = (ctypes.c_float(16), ctypes.c_float(filtered), *map(ctypes.c_int, (n_rows, n_samples, stretch)))
        card.launch(f"exponentials_{letter}", grid, n_threads, 0, cosines, own, offset, *numbers, found, sums)
        what = f"exponentials_{letter}, {n_rows} rows, {n_samples} samples, {n_threads} threads, {grid} blocks"
        expect(sums.sum(0), e.sum(0), "f", f"sums of {what}")
        expect(found, np.where(noise, 0, e), letter, what)


def check_all(card, quick):
    random = np.random.default_rng(1)
    # Fewer numbers than threads, as many, more, and no multiple of either.
    sizes = [(24, 32), (130, 64)] if quick else [(24, 32), (128, 128), (130, 64), (1, 8), (512, 128)]
    formats = ["".join(f) for f in itertools.product("fh", repeat=3)]
    kinds = [(SGD, False), (SGD, True), (ADAMW, False), (ROW_ADAGRAD, False)]
    for (dim, n_threads), of in itertools.product(sizes, formats):
        for optimizer, missed in kinds:
            case = Case(card, random, of, dim, n_threads, optimizer, missed)
            case.check_unit_rows()
            case.check_update()
    Case(card, random, "hhh", 24, 32, rows=(7,)).check_update()
    for letter in "fh":
        check_exponentials(card, random, letter, 150, 7, 1)
        check_exponentials(card, random, letter, 150, 7, 128)
        check_exponentials(card, random, letter, 64, 130, 64)
        check_exponentials(card, random, letter, 1, 1, 32)
        # More stretches than blocks, as with more rows than a card takes blocks for.
        check_exponentials(card, random, letter, 400, 5, 32, n_blocks_y=2)


if __name__ == "__main__":
    check_all(Card(sys.argv[1]), "--quick" in sys.argv)
