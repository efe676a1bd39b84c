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
        # Of a row that was never touched, of one that is up to date, and of those that have missed 1 to 3 steps.
        self.maps = np.array([1, 0, 0, 1], dtype=np.float32) + 0.1 * normal(5, 4)
        self.maps[1] = [1, 0, 0, 1]
        if not missed:
            self.maps = None
        self.now = 9
        self.stamps = np.resize(np.array([9, 8, 0, 6, 7, 9], dtype=np.int32), 40)
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
        # The second row has two pulls, the last has one, and there are some of rows that are in no block.
        second, last = self.rows[min(1, n - 1)], self.rows[-1]
        pulls = sorted([(0, 1), (second, 4), (second, 0), (last, 5), (38, 2)], key=lambda pull: pull[0])
        self.pulled = np.array([row for row, _ in pulls], dtype=np.int64)
        self.samples = np.array([sample for _, sample in pulls], dtype=np.int32)
        # By sample.
        self.slopes = np.array([-0.25, 9, 9, 9, -0.5, -2.0], dtype=np.float32)

    def __str__(self):
        return f"{self.formats}, {self.dim} wide, optimizer {self.optimizer}, {self.n_threads} threads"

    def caught_up(self):
        """Weight and state after what the rows have missed."""
        w, s = widen(self.weight[self.rows]), widen(self.state[self.rows])
        if self.maps is not None:
            stamps = self.stamps[self.rows]
            maps = self.maps[np.where(stamps == 0, 0, self.now - stamps + 1)]
            ww, wv, vw, vv = (maps[:, i : i + 1] for i in range(4))
            w, s = ww * w + wv * s, vw * w + vv * s
        return w, s

    def missed(self):
        """As the kernels take it, after the stamps and the rows."""
        n_maps = 0 if self.maps is None else len(self.maps)
        return self.maps, ctypes.c_int(n_maps), ctypes.c_uint32(self.now)

    def check_unit_rows(self):
        w, _ = self.caught_up()
        units = np.zeros_like(self.negatives)
        self.card.launch(
            f"unit_rows_{self.formats}", (len(self.rows), 1), self.n_threads, 4 * self.n_threads,
            self.weight, self.state, self.stamps, self.rows, *self.missed(), ctypes.c_int(self.dim), units,
        )
        length = np.maximum(np.linalg.norm(w, axis=1, keepdims=True), LENGTH_LEAST)
        expect(units, w / length, self.formats[2], f"unit_rows: {self}")

    def moved(self):
        """Weight and state as numpy moves them."""
        w, s = self.caught_up()
        m = np.array(MOTIONS[self.optimizer], dtype=np.float32)
        g = widen(self.negatives).copy()
        for at, row in enumerate(self.rows):
            for sample in self.samples[self.pulled == row]:
                g[at] += self.slopes[sample] * self.embeddings[sample]
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

    def update(self, figures=None):
        """Weight, state and stamps after the kernel has moved copies of them, as far as the step's figures let it."""
        weight, state, stamps = self.weight.copy(), self.state.copy(), self.stamps.copy()
        self.card.launch(
            f"update_{self.formats}", (len(self.rows), 1), self.n_threads, 4 * (self.n_threads + 2 * self.dim),
            weight, state, stamps, self.rows, *self.missed(), ctypes.c_int(self.dim), ctypes.c_uint32(11),
            ctypes.c_int(self.n_state), self.negatives, self.pulled, self.samples, ctypes.c_int(len(self.pulled)),
            self.slopes, self.embeddings, figures,
            ctypes.c_uint64(self.key_base),
            ctypes.c_int(self.optimizer), *(ctypes.c_float(x) for x in MOTIONS[self.optimizer]),
        )
        return weight, state, stamps

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
        stamps = self.stamps.copy()
        stamps[self.rows] = 11
        assert (found[2] == stamps).all(), f"update: {self}: stamps"
        again = self.update(np.array([1.0, 0.5, -1.0, 1.0]))
        assert all((a == b).all() for a, b in zip(found, again)), f"update: {self}: other bits the second time"
        left_out = self.update(np.array([np.nan, 0.5, -1.0, 0.0]))
        same = all((a == b).all() for a, b in zip(left_out, (self.weight, self.state, self.stamps)))
        assert same, f"update: {self}: it moved rows in a step that is not finite"

    def check_positives(self):
        """A sample for each row, the second twice, as samples of the same class have it."""
        samples = np.array([0, 1, 1, len(self.rows) - 1])
        w, _ = self.caught_up()
        length = np.maximum(np.linalg.norm(w.astype(np.float64), axis=1, keepdims=True), LENGTH_LEAST)
        expected = (w / length)[samples]
        units = self.embeddings[[0, 1, 2, 3]] / np.linalg.norm(self.embeddings[[0, 1, 2, 3]], axis=1, keepdims=True)
        found, cosines, slots = np.zeros((4, self.dim), np.float32), np.full(4, np.nan), np.full(4, -1, np.int32)
        self.card.launch(
            f"positives_{self.formats[:2]}", (4, 1), self.n_threads, 8 * self.n_threads,
            self.weight, self.state, self.stamps, self.rows[samples], *self.missed(), ctypes.c_int(self.dim), units,
            self.rows, ctypes.c_int(len(self.rows)), found, cosines, slots,
        )
        assert (slots == samples).all(), f"slots: {self}: {slots}"
        expect(found, expected, "f", f"positives: {self}")
        # Of the very numbers that the kernel has written, in f64.
        exact = (found.astype(np.float64) * units.astype(np.float64)).sum(1)
        assert np.abs(cosines - exact).max() < 1e-14, f"cosines: {self}"


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
        card.launch(f"exponentials_{letter}", grid, n_threads, 0, cosines, own + 3, ctypes.c_int(3), offset, *numbers, found, sums)
        what = f"exponentials_{letter}, {n_rows} rows, {n_samples} samples, {n_threads} threads, {grid} blocks"
        expect(sums.sum(0), e.sum(0), "f", f"sums of {what}")
        expect(found, np.where(noise, 0, e), letter, what)
    # What is no number shows in the sum.
    cosines[n_rows // 3, 0] = stored(np.array([np.nan], np.float32), letter)[0]
    own[:] = -1
    card.launch(f"exponentials_{letter}", grid, n_threads, 0, cosines, own, ctypes.c_int(0), None, *numbers, found, sums)
    assert np.isnan(sums[:, 0].sum()) and not np.isnan(sums[:, 1:]).any(), what


def check_normalise(card, random, letter, dim, n_threads):
    raw = (20 * random.standard_normal((5, dim))).astype(np.float32)
    raw[1], raw[2], raw[3, 0] = 0, 1e-16, np.inf
    unit, lengths = np.full_like(raw, np.nan), np.full(5, np.nan, np.float32)
    operand = stored(np.zeros_like(raw), letter)
    for given in (operand, None):
        card.launch(
            f"normalise_{letter}", (5, 1), n_threads, 4 * n_threads, raw, ctypes.c_int(dim), unit, given, lengths
        )
        with np.errstate(invalid="ignore"):
            exact = np.sqrt((raw.astype(np.float64) ** 2).sum(1))
            expected = raw / np.maximum(exact, 1e-12)[:, None]
        what = f"normalise_{letter}, {dim} wide, {n_threads} threads"
        finite = [0, 1, 2, 4]
        assert np.allclose(lengths[finite], exact[finite], rtol=1e-5, atol=0) and not np.isfinite(lengths[3]), what
        expect(unit[finite], expected[finite], "f", what)
    expect(operand[finite], expected[finite], letter, what)


# Name: what the kernel is told, and psi in the words of the papers.
MARGINS = {
    "CosFace": (0, [0.4, 0, 0, 0], lambda t: np.cos(t) - 0.4),
    "ArcFace, straight through": (1, [np.cos(0.5), np.sin(0.5), 0, 0], lambda t: np.cos(t + 0.5)),
    "ArcFace": (
        2, [np.cos(0.9), np.sin(0.9), -np.cos(0.9), 0.9 * np.sin(0.9)],
        lambda t: np.where(t + 0.9 > np.pi, np.cos(t) - 0.9 * np.sin(0.9), np.cos(t + 0.9)),
    ),
    "combined": (3, [1.3, 0.3 / np.pi, 0.1, 0], lambda t: np.cos(1.3 * t + 0.3) - 0.1),
}


def sample_losses(cosines, sums, psi, scale, weight):
    """What each sample loses, from the definition of the softmax."""
    logit = scale * psi(np.arccos(cosines))
    return np.logaddexp(np.log(sums * weight), logit) - logit


def launch_losses(card, kind, numbers, cosines, sums, lengths, scale, weight, n_threads):
    n = len(cosines)
    factors, slopes, figures = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32), np.full(4, np.nan)
    card.launch(
        "losses_", (1, 1), n_threads, 8 * n_threads, sums, cosines, lengths, ctypes.c_int(n), ctypes.c_int(kind),
        *map(ctypes.c_double, [*numbers, scale, weight]), factors, slopes, figures,
    )
    return factors, slopes, figures


def check_losses(card, random, n, n_threads):
    scale, weight, h = 16.0, 2.5, 1e-6
    cosines, lengths = random.uniform(-0.95, 0.95, n), random.uniform(1, 20, n).astype(np.float32)
    sums = np.exp(random.uniform(-5, 15, n))
    for name, (kind, numbers, psi) in MARGINS.items():
        what = f"losses, {name}, {n} samples, {n_threads} threads"
        # A difference quotient across the corner of the guard is none.
        at = np.where(np.abs(cosines + np.cos(0.9)) < 1e-3, 0.1, cosines)
        loss = lambda c, s: sample_losses(c, s, psi, scale, weight)
        factors, slopes, figures = launch_losses(card, kind, numbers, at, sums, lengths, scale, weight, n_threads)
        expected = loss(at, sums)
        assert abs(figures[0] - expected.mean()) < 1e-12 * expected.mean(), f"{what}: loss {figures[0]}"
        assert abs(figures[1] - at.mean()) < 1e-14 and list(figures[2:]) == [-1, 1], f"{what}: {figures}"
        by_cosine = (loss(at + h, sums) - loss(at - h, sums)) / (2 * h) / n
        if kind == 1:
            # Straight through: the derivative of the logit by the cosine counts as the scale.
            p = np.exp(-expected)
            by_cosine = scale * (p - 1) / n
        by_sum = (loss(at, sums * (1 + h)) - loss(at, sums * (1 - h))) / (2 * h * sums) / n
        assert np.allclose(slopes, by_cosine, rtol=2e-4, atol=1e-7 * scale), f"{what}: slopes"
        assert np.allclose(factors * sums, scale * by_sum * sums, rtol=2e-4, atol=1e-7 * scale), f"{what}: factors"
    # A sample that is hopeless, one that is sure, one without negatives, and cosines beyond 1 by rounding.
    cosines = np.array([-0.9, 0.999, 0.3, 1 + 1e-9, -1 - 1e-9])
    sums, lengths = np.array([np.exp(80.0), 1e-30, 0, 1, 1]), np.ones(5, np.float32)
    factors, slopes, figures = launch_losses(card, *MARGINS["ArcFace"][:2], cosines, sums, lengths, 16, 1, n_threads)
    psi = MARGINS["ArcFace"][2]
    rest = sample_losses(np.clip(cosines[3:], -1, 1), sums[3:], psi, 16, 1).sum()
    assert abs(figures[0] * 5 - (30 * np.log(10) + rest)) < 1e-9, f"losses at their ends: {figures}"
    assert slopes[2] == 0 and list(slopes[3:]) == [0, 0] and np.isfinite(slopes).all() and np.isfinite(factors).all()
    assert slopes[1] != 0, "a sure sample keeps the digits of what it lacks"
    # What is not finite is found, and lets nothing move.
    for change, first in [(lambda c, s, l: l.__setitem__([1, 4], np.nan), 1), (lambda c, s, l: l.__setitem__(0, np.inf), 0),
                          (lambda c, s, l: s.__setitem__(2, np.nan), -1), (lambda c, s, l: c.__setitem__(3, np.nan), -1)]:
        c, s, l = cosines.copy(), sums.copy(), lengths.copy()
        change(c, s, l)
        figures = launch_losses(card, *MARGINS["ArcFace"][:2], c, s, l, 16, 1, n_threads)[2]
        assert list(figures[2:]) == [first, 0], f"losses that are not finite: {figures}"


def check_gradients(card, random, letter, dim, n_threads):
    n, h = 4, 1e-6
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
    raw, weighted, centres = 3 * normal(n, dim), normal(n, dim), normal(n, dim)
    # Shorter than the least length.
    raw[3] *= 1e-14 / np.linalg.norm(raw[3])
    factors, slopes = normal(n), normal(n)
    exact = np.linalg.norm(raw.astype(np.float64), axis=1)
    unit, lengths = (raw / np.maximum(exact, 1e-12)[:, None]).astype(np.float32), exact.astype(np.float32)
    found, operand = np.full_like(raw, np.nan), stored(np.zeros_like(raw), letter)
    card.launch(
        f"gradients_{letter}", (n, 1), n_threads, 4 * n_threads, weighted, centres, unit, lengths, factors, slopes,
        ctypes.c_int(dim), found, operand,
    )
    by_unit = (weighted * factors[:, None] + centres * slopes[:, None]).astype(np.float64)
    value = lambda x: (by_unit * x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).sum(1)
    x = raw.astype(np.float64)
    step = (h * np.maximum(exact, 1e-12))[:, None] * np.eye(dim)[:, None, :]
    expected = np.stack([value(x + e) - value(x - e) for e in step], 1) / (2 * h * np.maximum(exact, 1e-12))[:, None]
    what = f"gradients_{letter}, {dim} wide, {n_threads} threads"
    for row in range(n):
        expect(found[row], expected[row], "f", what)
    expect(operand, unit * factors[:, None], letter, what)



def permuted(length, key):
    """The permutation of crates/shard, number by number, as its definition has it."""
    bits = (length - 1).bit_length()
    right_bits = (bits + 1) // 2
    left_mask, right_mask = (1 << bits - right_bits) - 1, (1 << right_bits) - 1
    keys = [scrambled(key + (i + 1) * 0x9E3779B97F4A7C15) for i in range(8)]

    def turn(value):
        left, right = value >> right_bits, value & right_mask
        for i in range(0, 8, 2):
            left ^= left_mask & scrambled(right + keys[i])
            right ^= right_mask & scrambled(left + keys[i + 1])
        return left << right_bits | right

    order = []
    for value in range(length):
        value = turn(value)
        while value >= length:
            value = turn(value)
        order.append(value)
    return order


def check_draw(card, random, n_threads):
    """Shares of classes as a head has them, with many positives, few, none, and all of its classes."""
    lengths, shares = [200, 200, 64, 1, 333, 40], [(5, 30), (60, 90), (0, 0), (0, 1), (300, 0), (25, 15)]
    table, positives, expected = [], [], []
    first = 0
    for length, (n_negatives, n_positives) in zip(lengths, shares):
        own = sorted(int(c) for c in random.choice(length, n_positives, replace=False))
        key = int(random.integers(0, 1 << 63, dtype=np.uint64)) * 2 + 1
        order = [c for c in permuted(length, key) if c not in own]
        table.append([first, length, len(expected), n_negatives, len(positives), n_positives, key - (key >> 63 << 64)])
        positives += [first + c for c in own]
        expected += sorted(first + c for c in own + order[:n_negatives])
        first += length
    rows = np.full(len(expected) + 1, -7, dtype=np.int64)
    shared = 4 * n_threads + 4 * (-(-max(lengths) // 32))
    card.launch("draw_", (len(table), 1), n_threads, shared, np.array(table, np.int64), np.array(positives, np.int64), rows)
    assert list(rows) == expected + [-7], f"draw, {n_threads} threads"


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
            if of[2] == "f":
                case.check_positives()
    Case(card, random, "hhh", 24, 32, rows=(7,)).check_update()
    for n_threads in (1, 4, 32):
        check_draw(card, random, n_threads)
    # Fewer samples than threads, as many, more.
    for n, n_threads in [(5, 8), (8, 8), (37, 16), (3, 1), (300, 256)]:
        check_losses(card, random, n, n_threads)
    for letter, (dim, n_threads) in itertools.product("fh", sizes[:3]):
        check_normalise(card, random, letter, dim, n_threads)
        check_gradients(card, random, letter, dim, n_threads)
    for letter in "fh":
        check_exponentials(card, random, letter, 150, 7, 1)
        check_exponentials(card, random, letter, 150, 7, 128)
        check_exponentials(card, random, letter, 64, 130, 64)
        check_exponentials(card, random, letter, 1, 1, 32)
        # More stretches than blocks, as with more rows than a card takes blocks for.
        check_exponentials(card, random, letter, 400, 5, 32, n_blocks_y=2)


if __name__ == "__main__":
    check_all(Card(sys.argv[1]), "--quick" in sys.argv)
