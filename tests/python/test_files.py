"""RecordIO files and verification packs against what the tests themselves wrote."""

import pickle
import struct

import numpy as np
import pfc
import pytest
from conftest import encoded, golden, is_near, picture, safetensors


def test_records_are_those_that_were_written(rec_file, pngs):
    path, labels = rec_file
    images, pixels = pngs
    for where in (path, path.parent, str(path)):
        rec = pfc.open_rec(where)
        assert len(rec) == rec.num_records == 10 and rec.notes == []
        assert rec.labels.tolist() == labels and rec.labels.dtype == np.int64
        assert [rec.bytes(i) for i in range(10)] == images
        for i in range(10):
            image, label = rec[i]
            assert label == labels[i] and np.array_equal(image, pixels[i])
        assert [rec.key(i) for i in range(10)] == list(range(10))
        assert rec.record(4) == (4, [float(labels[4])], images[4])


def test_a_batch_of_records_is_their_pixels(rec_file, pngs):
    rec = pfc.open_rec(rec_file[0], threads=3)
    pixels = np.stack(pngs[1])
    assert np.array_equal(rec.batch(range(10)), pixels)
    out = np.empty((2, 3, 112, 112), np.uint8)
    assert rec.batch([-1, 0], out, layout="nchw") is out
    assert np.array_equal(out, pixels[[-1, 0]].transpose(0, 3, 1, 2))


def test_a_file_without_its_index_is_gone_through(rec_file, tmp_path):
    (tmp_path / "x.rec").write_bytes(rec_file[0].read_bytes())
    assert pfc.open_rec(tmp_path / "x.rec").labels.tolist() == rec_file[1]


def test_identity_records_are_no_images(tmp_path, pngs):
    """face2rec2's layout: record 0 says where images end, identity records hold ranges of keys."""
    images = pngs[0][:3]
    headers = [struct.pack("<IfQQ2f", 2, 0, 0, 0, 4, 6)]
    headers += [
        struct.pack("<IfQQ2f", 2, 0, i + 1, 0, label, 0) for i, label in enumerate([0, 0, 1])
    ]
    headers += [struct.pack("<IfQQ2f", 2, 0, 4, 0, 1, 3), struct.pack("<IfQQ2f", 2, 0, 5, 0, 3, 4)]
    contents = [b"", *images, b"", b""]
    rec, idx = b"", ""
    for key, payload in enumerate(map(bytes.__add__, headers, contents)):
        idx += f"{key}\t{len(rec)}\n"
        rec += struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)
    (tmp_path / "train.rec").write_bytes(rec)
    (tmp_path / "train.idx").write_text(idx)
    rec = pfc.open_rec(tmp_path)
    assert (len(rec), rec.num_records) == (3, 6) and rec.labels.tolist() == [0, 0, 1]
    assert [rec.bytes(i) for i in range(3)] == images and rec.key(0) == 1
    assert rec.record(4)[1:] == ([1.0, 3.0], b"")


def test_images_of_two_sizes_are_read_one_by_one(tmp_path):
    from conftest import write_rec

    small, large = picture(1, 20, 30), picture(2, 50, 40)
    path = write_rec(tmp_path, [(0, encoded(small, "PNG")), (1, encoded(large, "BMP"))])
    rec = pfc.open_rec(path)
    assert np.array_equal(rec[0][0], small) and np.array_equal(rec[1][0], large)
    with pytest.raises(pfc.PfcValueError, match="image 1: it is 40x50 pixels"):
        rec.batch([0, 1])


def test_grey_images_have_three_equal_channels(tmp_path):
    from conftest import write_rec

    grey = picture(1)[:, :, 0]
    path = write_rec(tmp_path, [(0, encoded(grey, "PNG"))])
    assert np.array_equal(pfc.open_rec(path)[0][0], np.stack([grey] * 3, axis=-1))


def test_what_is_no_image_is_named(tmp_path):
    from conftest import write_rec

    path = write_rec(tmp_path, [(0, b"no image"), (1, encoded(picture(1), "PNG")[:500])])
    rec = pfc.open_rec(path)
    for i, said in ((0, "not an image"), (1, "image 1")):
        with pytest.raises(pfc.PfcValueError, match=said):
            rec[i]
    with pytest.raises(pfc.PfcValueError):
        rec.batch([])


def test_damage_is_named_by_its_offset(rec_file, tmp_path):
    content = bytearray(rec_file[0].read_bytes())
    content[:4] = b"\0\0\0\0"
    (tmp_path / "train.rec").write_bytes(content)
    with pytest.raises(pfc.PfcValueError, match="byte 0"):
        pfc.open_rec(tmp_path / "train.rec")


@pytest.mark.parametrize("opens", [pfc.open_rec, pfc.open_bin])
def test_a_file_that_is_not_there_is_a_missing_file(opens, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        opens(tmp_path / "nope.rec")
    assert isinstance(error.value, pfc.PfcFileNotFoundError) and error.value.errno == 2


def test_pairs_are_those_that_were_pickled(bin_file, pngs):
    path, issame = bin_file
    images, pixels = pngs
    pack = pfc.open_bin(path)
    assert len(pack) == 10 and pack.issame.dtype == np.bool_ and pack.issame.tolist() == issame
    assert [pack.bytes(i) for i in range(10)] == images
    assert np.array_equal(pack[-1], pixels[-1])
    assert np.array_equal(pack.images(), np.stack(pixels))
    assert np.array_equal(pack.batch([2, 1], layout="nchw")[1], pixels[1].transpose(2, 0, 1))


def test_a_pickle_that_is_no_pack_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    (tmp_path / "evil.bin").write_bytes(pickle.dumps(([b"", b""], [Evil()])))
    with pytest.raises(pfc.PfcValueError, match="not a verification pack"):
        pfc.open_bin(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def test_copies_by_pickle_read_the_same(rec_file, bin_file):
    rec = pickle.loads(pickle.dumps(pfc.open_rec(rec_file[0])))
    assert rec.labels.tolist() == rec_file[1]
    pack = pickle.loads(pickle.dumps(pfc.open_bin(bin_file[0])))
    assert pack.issame.tolist() == bin_file[1]


def test_golden_packs_have_the_pixels_of_libjpeg():
    folder = golden("bin")
    pack = pfc.open_bin(folder / "lfw200_jpeg_py2_p2.bin")
    known = safetensors(folder / "lfw200_jpeg_rgb.safetensors")
    for name, pixels in known.items():
        assert is_near(pack[int(name.removeprefix("rgb."))], pixels), name
    assert len(known) >= 8
