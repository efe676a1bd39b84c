"""With torch's DataLoader, its workers and samplers."""

import warnings

import numpy as np
import pfc
import pytest

torch = pytest.importorskip("torch", reason="no torch beside the tests' Python")
import pfc.torch  # noqa: E402
from torch.utils.data import DataLoader, DistributedSampler  # noqa: E402


@pytest.fixture(scope="module")
def ds(packed):
    ds = pfc.Dataset(packed)
    # Threads of this process, which forked ones do not have.
    ds.batch(range(42))
    ds.labels  # noqa: B018
    return ds


def items(loader):
    """All images and labels of a loader."""
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat(
        [labels for _, labels in batches]
    )


@pytest.mark.parametrize("collate", [None, pfc.torch.collate])
@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_loader_reads_what_the_data_set_holds(ds, rows, context, collate):
    options = {"num_workers": 2, "multiprocessing_context": context} if context else {}
    images, labels = items(DataLoader(ds, batch_size=10, collate_fn=collate, **options))
    assert images.dtype == torch.uint8 and images.shape == (42, 112, 112, 3)
    assert labels.dtype == torch.int64 and labels.tolist() == rows.labels
    assert np.array_equal(images.numpy(), ds.batch(range(42)))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_an_error_in_a_worker_comes_back_as_what_it_is(ds, context):
    loader = DataLoader(
        ds, sampler=[1, 99], batch_size=2, num_workers=1, multiprocessing_context=context
    )
    with pytest.raises(pfc.PfcIndexError, match="there is no row 99 among 42"):
        list(loader)


def test_workers_say_nothing_of_decisions_again(decided, capfd):
    with pytest.warns(pfc.DecisionsWarning):
        ds = pfc.Dataset(decided)
    _, labels = items(DataLoader(ds, 7, num_workers=2, multiprocessing_context="spawn"))
    assert labels.tolist() == ds.labels.tolist()
    assert "Warning" not in capfd.readouterr().err


def test_a_distributed_sampler_shares_the_rows(ds):
    seen = []
    for rank in range(3):
        sampler = DistributedSampler(ds, num_replicas=3, rank=rank, shuffle=True)
        sampler.set_epoch(2)
        _, labels = items(
            DataLoader(ds, batch_size=4, sampler=sampler, collate_fn=pfc.torch.collate)
        )
        assert labels.tolist() == [ds[i][1] for i in sampler]
        seen += list(sampler)
    assert sorted(seen) == list(range(42))


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_order_of_training_is_a_sampler(ds, drop_last):
    for rank in range(4):
        sampler = pfc.torch.TrainingOrder(ds, 5, rank=rank, world=4, drop_last=drop_last)
        for epoch in (0, 3):
            sampler.set_epoch(epoch)
            order = ds.order(5, epoch, rank, 4).tolist()
            assert list(sampler) == (order[:10] if drop_last else order)
            assert len(sampler) == len(list(sampler))
    assert len(pfc.torch.TrainingOrder(ds, 5)) == 42


def test_a_whole_batch_becomes_a_tensor_without_a_copy(ds):
    items = ds.__getitems__([4, 2, 9])
    images, labels = pfc.torch.collate(items)
    assert images.data_ptr() == items[0][0].__array_interface__["data"][0]
    assert labels.tolist() == [ds[i][1] for i in (4, 2, 9)]
    # Parts of it, or parts in another order, are not the whole.
    for some in (items[1:], items[::-1], [ds[1], ds[2]]):
        images, _ = pfc.torch.collate(some)
        assert np.array_equal(images.numpy(), np.stack([image for image, _ in some]))


def test_tensors_share_the_memory_of_a_batch(ds):
    batch = next(ds.batches(4, seed=1))
    images, labels = pfc.torch.tensors(batch)
    assert images.data_ptr() == batch[0].__array_interface__["data"][0]
    assert labels.data_ptr() == batch[1].__array_interface__["data"][0]


def test_batches_fill_the_memory_of_a_tensor(ds):
    pinned = torch.empty((3, 3, 112, 112), dtype=torch.uint8)
    ds.batch(torch.tensor([1, 2, 3]), pinned.numpy(), layout="nchw")
    assert np.array_equal(pinned[2].permute(1, 2, 0).numpy(), ds[3][0])


def test_normalised_images_are_what_networks_take(ds):
    batch = ds.batch([1, 2])
    images = pfc.torch.normalise(torch.from_numpy(batch))
    assert images.shape == (2, 3, 112, 112) and images.dtype == torch.float32
    expected = (batch.transpose(0, 3, 1, 2).astype(np.float64) - 127.5) / 127.5
    assert np.abs(images.numpy() - expected).max() < 1e-6
    assert torch.equal(
        images, pfc.torch.normalise(torch.from_numpy(ds.batch([1, 2], layout="nchw")))
    )
    assert pfc.torch.normalise(torch.from_numpy(batch), torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(pfc.PfcValueError):
        pfc.torch.normalise(images)


def test_one_thread_works_in_a_worker(packed):
    """Workers share the cores, so that each decodes with one thread, unless it is told otherwise."""
    for threads in (None, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ds = pfc.Dataset(packed, threads=threads)
            loader = DataLoader(Threads(ds), None, num_workers=1, multiprocessing_context="fork")
            (n_threads,) = list(loader)
        assert (n_threads <= 1) == (threads is None)


class Threads:
    """An item is the number of pfc's threads in the process that reads it."""

    def __init__(self, ds):
        self.ds = ds

    def __len__(self):
        return 1

    def __getitem__(self, i):
        import pathlib

        self.ds.batch(range(42))
        names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
        return sum(name.startswith("pfc ") for name in names)
