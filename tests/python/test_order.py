"""The order of training, against a second implementation from its definition in docs/python.md."""

import itertools
import struct

import numpy as np
import pfc
import pytest
import xxhash

WORD = 2**64
GAMMA = 0x9E3779B97F4A7C15


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def permutation(n, key):
    """The list of the images of 0 to n - 1."""
    bits = (n - 1).bit_length()
    right_bits = (bits + 1) // 2
    left_mask, right_mask = (1 << (bits - right_bits)) - 1, (1 << right_bits) - 1
    keys = [mix((key + (i + 1) * GAMMA) % WORD) for i in range(8)]

    def turn(value):
        left, right = value >> right_bits, value & right_mask
        for i in range(0, 8, 2):
            left ^= mix((right + keys[i]) % WORD) & left_mask
            right ^= mix((left + keys[i + 1]) % WORD) & right_mask
        return left << right_bits | right

    def walk(value):
        value = turn(value)
        while value >= n:
            value = turn(value)
        return value

    return [walk(i) for i in range(n)]


def order(n, seed, epoch):
    return permutation(n, xxhash.xxh3_64_intdigest(struct.pack("<Q", epoch), seed=seed))


def mixed(x):
    return mix((x + GAMMA) % WORD)


def mirrors(n, seed, epoch):
    key = mixed(mixed(seed) ^ epoch)
    return [mixed(key ^ position) >> 63 == 1 for position in range(n)]


CASES = [(0, 0), (1, 0), (1, 7), (2**64 - 1, 2**40)]


@pytest.fixture(scope="module")
def ds(packed):
    return pfc.Dataset(packed)


@pytest.mark.parametrize(("seed", "epoch"), CASES)
def test_the_order_is_the_one_that_is_defined(ds, seed, epoch):
    found = ds.order(seed, epoch)
    assert found.dtype == np.int64 and found.tolist() == order(len(ds), seed, epoch)
    assert sorted(found.tolist()) == list(range(len(ds)))
    assert ds.mirrors(seed, epoch).tolist() == mirrors(len(ds), seed, epoch)


@pytest.mark.parametrize("world", [1, 2, 5, 42, 50])
def test_ranks_take_turns(ds, world):
    whole, flips = order(len(ds), 3, 2), mirrors(len(ds), 3, 2)
    for rank in range(world):
        assert ds.order(3, 2, rank, world).tolist() == whole[rank::world]
        assert ds.mirrors(3, 2, rank, world).tolist() == flips[rank::world]


def test_parts_are_parts_of_the_whole(ds):
    whole = ds.order(3, 2, 1, 4)
    for start, stop in [(0, 3), (3, 7), (7, None), (9, 4), (99, None), (0, 99)]:
        assert ds.order(3, 2, 1, 4, start=start, stop=stop).tolist() == whole[start:stop].tolist()


def steps(n, batch, world, seed, epoch):
    """What each step of pfc-train with a batch of batch * world holds, rank by rank."""
    whole = order(n, seed, epoch)
    for first in range(0, n - n % (batch * world), batch * world):
        step = whole[first : first + batch * world]
        yield [step[rank::world] for rank in range(world)]


@pytest.mark.parametrize(("batch", "world"), [(8, 1), (4, 3), (5, 2), (1, 42)])
def test_batches_are_the_steps_of_training(ds, batch, world):
    expected = list(steps(len(ds), batch, world, 1, 4))
    for rank in range(world):
        options = {"seed": 1, "epoch": 4, "rank": rank, "world": world, "drop_last": True}
        found = ds.batches(batch, **options)
        assert len(found) == len(expected)
        for (images, labels), step in itertools.zip_longest(found, expected):
            assert np.array_equal(images, ds.batch(step[rank]))
            assert labels.tolist() == [ds[row][1] for row in step[rank]]
        assert len(found) == 0 and next(found, None) is None


def test_the_last_batch_holds_what_is_left(ds):
    sizes = [len(labels) for _, labels in ds.batches(10, seed=1)]
    assert sizes == [10, 10, 10, 10, 2]
    rows = [label for _, labels in ds.batches(10, seed=1) for label in labels.tolist()]
    assert rows == [ds[row][1] for row in order(42, 1, 0)]


def test_without_a_seed_rows_come_as_they_are_stored(ds):
    batches = list(ds.batches(9, rank=1, world=2))
    assert np.concatenate([labels for _, labels in batches]).tolist() == ds.labels[1::2].tolist()


def test_mirroring_is_that_of_training(ds):
    flips = mirrors(len(ds), 6, 3)
    (images, _), *rest = ds.batches(42, seed=6, epoch=3, mirror=True, layout="nchw")
    assert not rest and images.shape == (42, 3, 112, 112)
    for image, row, flip in zip(images, order(42, 6, 3), flips):
        plain = ds[row][0].transpose(2, 0, 1)
        assert np.array_equal(image, plain[:, :, ::-1] if flip else plain)


def test_batches_go_on_from_any_of_them(ds):
    whole = [labels.tolist() for _, labels in ds.batches(5, seed=2)]
    found = ds.batches(5, seed=2, start=3)
    assert len(found) == len(whole) - 3
    assert [labels.tolist() for _, labels in found] == whole[3:]
    assert list(ds.batches(5, seed=2, start=100)) == []


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_batches_do_not_depend_on_threads(packed, threads, ahead):
    ds = pfc.Dataset(packed, threads=threads)
    found = [labels.tolist() for _, labels in ds.batches(4, seed=9, ahead=ahead)]
    whole = [ds[row][1] for row in order(42, 9, 0)]
    assert found == [whole[i : i + 4] for i in range(0, 42, 4)]


def test_batches_that_are_left_end_their_threads(ds):
    for _ in range(50):
        next(ds.batches(2, seed=1))
