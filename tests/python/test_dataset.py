"""pfc.Dataset against Pillow and pyarrow."""

import pickle
import warnings

import numpy as np
import pfc
import pytest
from conftest import decoded, encoded, ingest, is_near, picture


@pytest.fixture(scope="module")
def ds(packed):
    return pfc.Dataset(packed)


def test_rows_are_those_that_pyarrow_reads(ds, rows):
    assert len(ds) == len(rows.labels) == 42
    assert [ds.bytes(i) for i in range(len(ds))] == rows.images
    assert [ds.source(i) for i in range(len(ds))] == rows.sources
    assert [ds[i][1] for i in range(len(ds))] == rows.labels
    assert [ds.row(i) for i in range(len(ds))] == list(range(42))


def test_labels_are_the_folders_that_were_packed(ds):
    assert ds.num_classes == 7
    for i in range(len(ds)):
        assert ds.source(i).startswith(ds.names[ds[i][1]] + "/")


def test_the_column_of_labels_is_read_once_and_not_writable(ds, rows):
    assert ds.labels.dtype == np.int64
    assert ds.labels.tolist() == rows.labels
    assert ds.labels is ds.labels
    with pytest.raises(ValueError):
        ds.labels[0] = 1


def test_an_image_has_the_pixels_that_pillow_shows(ds, rows):
    for i in (0, 17, 41):
        image, _ = ds[i]
        assert image.dtype == np.uint8 and image.shape == (112, 112, 3) == (*ds.image_size, 3)
        assert is_near(image, decoded(rows.images[i]))


def test_numbers_count_from_the_end_and_end(ds):
    assert np.array_equal(ds[-1][0], ds[41][0]) and ds.bytes(np.int64(-42)) == ds.bytes(0)
    for beyond in (42, -43, 2**62):
        with pytest.raises(IndexError) as error:
            ds[beyond]
        assert isinstance(error.value, pfc.PfcIndexError) and "from 0 to 41" in error.value.hint
    with pytest.raises(TypeError):
        ds[1.5]
    with pytest.raises(TypeError):
        ds["1"]


def test_going_through_it_ends(ds):
    assert sum(1 for _ in ds) == 42


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_batch_is_its_images(packed, threads):
    ds = pfc.Dataset(packed, threads=threads)
    indices = [3, 41, -1, 0, 3]
    images = ds.batch(indices)
    assert images.shape == (5, 112, 112, 3) and images.dtype == np.uint8
    for image, i in zip(images, indices):
        assert np.array_equal(image, ds[i][0])
    planes = ds.batch(np.array(indices), layout="nchw")
    assert planes.flags.c_contiguous and np.array_equal(planes, images.transpose(0, 3, 1, 2))
    mirrored = ds.batch(indices, mirror=[True, False, True, False, False])
    assert np.array_equal(mirrored[[0, 2]], images[[0, 2], :, ::-1])
    assert np.array_equal(mirrored[[1, 3, 4]], images[[1, 3, 4]])


def test_a_batch_goes_into_the_array_that_is_given(ds):
    out = np.empty((2, 112, 112, 3), np.uint8)
    assert ds.batch([5, 6], out) is out
    assert np.array_equal(out[1], ds[6][0])
    part = np.zeros((4, 112, 112, 3), np.uint8)
    ds.batch([5, 6], part[1:3])
    assert np.array_equal(part[1:3], out) and not part[0].any() and not part[3].any()


def test_more_images_than_one_piece_are_decoded(ds):
    indices = np.arange(2100) % 42
    images = ds.batch(indices)
    assert np.array_equal(images[2099], ds[2099 % 42][0])
    assert np.array_equal(images[:42], images[42 * 30 : 42 * 31])


@pytest.mark.parametrize("indices", [[0.5], [[0]], [True, False], ["a"], [[0, 1], [2]]], ids=repr)
def test_what_is_no_list_of_whole_numbers_is_refused(ds, indices):
    with pytest.raises(ValueError):
        ds.batch(indices)


def test_an_empty_batch_is_empty(ds):
    assert ds.batch([]).shape == (0, 112, 112, 3)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (np.empty((2, 112, 112, 3), np.uint8), "(1, 112, 112, 3)"),
        (np.empty((1, 112, 112, 3), np.float32), "uint8"),
        (np.empty((1, 112, 112, 6), np.uint8)[..., ::2], "contiguous"),
        (bytearray(112 * 112 * 3), "uint8"),
    ],
    ids=["shape", "type", "strided", "no array"],
)
def test_an_array_that_does_not_fit_is_refused(ds, out, said):
    with pytest.raises(pfc.PfcValueError) as error:
        ds.batch([0], out)
    assert said in str(error.value)


def test_an_array_that_may_not_be_written_is_refused(ds):
    out = np.zeros((1, 112, 112, 3), np.uint8)
    out.flags.writeable = False
    with pytest.raises(pfc.PfcValueError):
        ds.batch([0], out)
    assert not out.any()


def test_wrong_arguments_say_what_is_right(ds):
    with pytest.raises(pfc.PfcValueError, match="nchw"):
        ds.batch([0], layout="chw")
    with pytest.raises(pfc.PfcValueError, match="2 values for 1 rows"):
        ds.batch([0], mirror=[True, False])
    with pytest.raises(pfc.PfcValueError):
        ds.order(1, 0, rank=2, world=2)
    with pytest.raises(pfc.PfcValueError):
        ds.batches(0)
    with pytest.raises(pfc.PfcValueError):
        ds.batches(4, mirror=True)
    with pytest.raises(pfc.PfcValueError):
        pfc.Dataset(ds.path, threads=0)


def test_a_folder_without_a_data_set_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        pfc.Dataset(tmp_path / "nope")
    assert isinstance(error.value, pfc.PfcError) and isinstance(error.value, OSError)
    assert (
        "dataset.json is missing" in error.value.message and "pfc-ingest pack" in error.value.hint
    )
    assert error.value.filename == str(tmp_path / "nope")
    with pytest.raises(FileNotFoundError):
        pfc.Dataset(str(tmp_path))


def test_a_damaged_data_set_is_a_value_error(packed, tmp_path):
    copy = tmp_path / "copy"
    (copy / "shards").mkdir(parents=True)
    for path in packed.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(packed)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    shard = next((copy / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[:64] = b"\0" * 64
    shard.write_bytes(content)
    ds = pfc.Dataset(copy)
    with pytest.raises(pfc.PfcValueError, match=shard.name):
        ds[0]
    with pytest.raises(pfc.PfcValueError, match=shard.name):
        len(ds.labels)
    shard.write_bytes(content[:100])
    with pytest.raises(pfc.PfcValueError, match="has 100 bytes"):
        pfc.Dataset(copy)


def test_errors_survive_pickling(ds, tmp_path):
    for fail in (lambda: ds[99], lambda: pfc.Dataset(tmp_path), lambda: ds.batch([0.5])):
        with pytest.raises(pfc.PfcError) as error:
            fail()
        copy = pickle.loads(pickle.dumps(error.value))
        assert type(copy) is type(error.value) and str(copy) == str(error.value)
        assert copy.hint == error.value.hint
        assert getattr(copy, "filename", None) == getattr(error.value, "filename", None)


def test_decisions_are_applied_and_said(decided, packed):
    with pytest.warns(pfc.DecisionsWarning, match="2 of 44 rows are left out by decisions") as said:
        ds = pfc.Dataset(decided)
    assert "as_packed=True" in str(said[0].message) and said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_packed = pfc.Dataset(decided, as_packed=True)
        pfc.Dataset(packed)
    assert (len(ds), len(as_packed)) == (42, 44)
    kept = {ds.row(i) for i in range(len(ds))}
    contents = [as_packed.bytes(i) for i in range(44)]
    assert {contents[row] for row in kept} == set(contents)
    left_out = [as_packed.source(row) for row in set(range(44)) - kept]
    assert {source.split("/")[0] for source in left_out} == {"person3", "person5"}


def test_labels_have_no_gaps_where_a_person_is_left_out(tmp_path):
    """Two people of one picture each, of whom one is somebody else's picture."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("c2", 3)):
        (tmp_path / "people" / name).mkdir(parents=True)
        content = encoded(picture(seed), "JPEG")
        (tmp_path / "people" / name / "x.jpg").write_bytes(content)
    ingest("pack", tmp_path / "people", tmp_path / "set")
    ingest("clean", tmp_path / "set", "--pass", "files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pfc.DecisionsWarning)
        ds = pfc.Dataset(tmp_path / "set")
    assert sorted(set(ds.labels.tolist())) == list(range(ds.num_classes))
    assert len(ds.names) == ds.num_classes
    for i in range(len(ds)):
        assert ds.source(i).split("/")[0] == ds.names[ds[i][1]]


def test_a_copy_by_pickle_reads_the_same(decided):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pfc.DecisionsWarning)
        ds = pfc.Dataset(decided, threads=2)
        copy = pickle.loads(pickle.dumps(ds))
        as_packed = pickle.loads(pickle.dumps(pfc.Dataset(decided, True)))
    assert len(copy) == len(ds) and copy.labels.tolist() == ds.labels.tolist()
    assert np.array_equal(copy[7][0], ds[7][0]) and len(as_packed) == 44 and as_packed.as_packed


def test_a_class_derived_from_it_keeps_what_it_adds(packed):
    copy = pickle.loads(pickle.dumps(Derived(packed)))
    assert copy.name == "mine" and copy[0][1] == pfc.Dataset(packed)[0][1]


class Derived(pfc.Dataset):
    name = "class"

    def __init__(self, path):
        self.name = "mine"
