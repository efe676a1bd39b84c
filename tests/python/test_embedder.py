"""pfc.Embedder against onnxruntime's own Python interface."""

import pickle
import warnings

import numpy as np
import pfc
import pytest
from conftest import golden, picture, safetensors

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return golden("backbones") / "iresnet1111_w8_e64.onnx"


@pytest.fixture(scope="module")
def faces():
    return np.stack([picture(seed) for seed in range(70)])


def by_onnxruntime(model, faces):
    """Embeddings of InsightFace's convention, image by image, as the file fixes a batch of 1."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    values = ((faces.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {name: value[None]})[0] for value in values])


@pytest.fixture(scope="module")
def embedder(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pfc.ModelWarning)
        return pfc.Embedder(model)


def test_embeddings_are_those_of_onnxruntime(model, embedder, faces):
    found = embedder.embed(faces)
    assert found.dtype == np.float32 and found.shape == (70, embedder.dim) == (70, 64)
    expected = by_onnxruntime(model, faces)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_mirrored_embeddings_are_those_of_the_mirrored_faces(model, embedder, faces):
    found = embedder.embed(faces[:5], mirrored=True)
    expected = by_onnxruntime(model, faces[:5, :, ::-1])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_what_is_stated_counts(model, faces):
    stated = pfc.Embedder(model, mean=0, std=[255, 255, 255], channels="bgr")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    value = (faces[:1, :, :, ::-1].astype(np.float32) / 255).transpose(0, 3, 1, 2)
    expected = session.run(None, {session.get_inputs()[0].name: value})[0]
    assert np.abs(stated.embed(faces[:1]) - expected).max() < 1e-4 * np.abs(expected).max()
    assert "BGR" in stated.account and "x / 255" in stated.account


def test_it_says_what_it_measured(embedder):
    assert "(x − 127.5) / 127.5" in embedder.account and "output" in embedder.account
    assert isinstance(embedder.evidence, list)


def test_a_copy_by_pickle_embeds_the_same(embedder, faces):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pfc.ModelWarning)
        copy = pickle.loads(pickle.dumps(embedder))
    assert np.array_equal(copy.embed(faces[:3]), embedder.embed(faces[:3]))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((112, 112, 3), np.uint8),
        np.zeros((1, 3, 112, 112), np.uint8),
        np.zeros((1, 112, 112, 3), np.float32),
        np.zeros((2, 112, 112, 6), np.uint8)[..., ::2],
        [[1]],
    ],
    ids=["one", "planes", "floats", "strided", "list"],
)
def test_what_are_no_faces_is_refused(embedder, images):
    with pytest.raises(pfc.PfcValueError, match=r"\(N, 112, 112, 3\)"):
        embedder.embed(images)


def test_no_faces_have_no_embeddings(embedder):
    assert embedder.embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 64)


def test_what_is_no_model_is_refused(tmp_path, model):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(pfc.PfcValueError, match="not an ONNX model"):
        pfc.Embedder(tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError):
        pfc.Embedder(tmp_path / "nope.onnx")
    with pytest.raises(pfc.PfcValueError, match="bgr"):
        pfc.Embedder(model, channels="hsv")
    with pytest.raises(pfc.PfcValueError, match="std"):
        pfc.Embedder(model, std=0)
    with pytest.raises(pfc.PfcValueError, match="output="):
        pfc.Embedder(model, output="nope")


def test_golden_answers_of_onnxruntime():
    folder = golden("backbones")
    values = safetensors(folder / "input.safetensors")["data"]
    expected = safetensors(folder / "iresnet1111_w8_e64.onnx.golden.safetensors")["output"]
    # Its input is no picture: rounded to pixels it is near, and the embeddings point the same way.
    faces = np.ascontiguousarray(
        (values * 127.5 + 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pfc.ModelWarning)
        found = pfc.Embedder(folder / "iresnet1111_w8_e64.onnx").embed(faces)
    cosine = (
        (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    )
    assert (cosine > 0.999).all()
