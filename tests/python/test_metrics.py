"""Figures against formulas in NumPy, written here from their definitions, and known answers."""

import dataclasses
import json

import numpy as np
import pfc
import pytest
from conftest import golden, safetensors


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs(n, dim, seed, noise=1.2):
    """Embeddings of n pairs, every other one genuine, and issame."""
    random = np.random.default_rng(seed)
    left = random.normal(size=(n, dim))
    issame = np.arange(n) % 2 == 0
    right = np.where(
        issame[:, None], left + noise * random.normal(size=(n, dim)), random.normal(size=(n, dim))
    )
    return left.astype(np.float32), right.astype(np.float32), issame


def folds_of(n, n_folds):
    return np.array_split(np.arange(n), n_folds)


def accuracies(distances, issame, n_folds):
    """By the protocol: thresholds 0, 0.01 ... 3.99, the first of those that are best on the others."""
    thresholds = np.arange(400) * 0.01
    right = (distances[:, None] < thresholds) == issame[:, None]
    found = []
    for fold in folds_of(len(distances), n_folds):
        others = np.setdiff1d(np.arange(len(distances)), fold)
        best = right[others].sum(axis=0).argmax()
        found.append((right[fold, best].mean(), thresholds[best]))
    return found


def tar_at_far(scores, issame, far):
    """Threshold at the (floor(far * n) + 1)-th highest impostor; above it is accepted."""
    impostors = np.sort(scores[~issame])[::-1]
    allowed = int(far * len(impostors) * (1 + 1e-12))
    threshold = impostors[allowed]
    return (scores[issame] > threshold).mean(), threshold, allowed


def auc(scores, issame):
    genuine, impostor = scores[issame][:, None], scores[~issame][None]
    return ((genuine > impostor) + 0.5 * (genuine == impostor)).mean()


@pytest.mark.parametrize("n_folds", [2, 7, 10])
def test_accuracy_is_that_of_the_protocol(n_folds):
    left, right, issame = pairs(203, 8, 1)
    result = pfc.verification(left, right, issame, n_folds, bootstrap=0)
    distances = ((unit(left) - unit(right)) ** 2).sum(axis=1)
    assert np.allclose(result.distances, distances, rtol=0, atol=1e-12)
    expected = accuracies(distances, issame, n_folds)
    assert np.allclose(result.folds, expected, rtol=0, atol=1e-12)
    of_folds = [accuracy for accuracy, _ in expected]
    assert np.isclose(result.accuracy, np.mean(of_folds)) and np.isclose(
        result.accuracy_std, np.std(of_folds)
    )
    assert np.isclose(result.threshold, np.mean([threshold for _, threshold in expected]))
    assert (result.pairs, result.genuine, result.impostor) == (203, 102, 101)
    assert result.accuracy_interval is None and result.auc.interval is None


def test_one_fold_takes_the_threshold_that_is_best_on_the_list():
    left, right, issame = pairs(60, 8, 2)
    result = pfc.verification(left, right, issame, folds=1, bootstrap=0)
    similarity = (unit(left) * unit(right)).sum(axis=1)
    candidates = np.append(similarity, 2)
    best = max(((similarity >= t) == issame).mean() for t in candidates)
    assert result.accuracy == best and result.accuracy_std is None
    assert result.folds == [] and result.val is None
    assert (((result.distances < result.threshold) == issame).mean()) == best


def test_rates_are_read_at_their_definition():
    left, right, issame = pairs(400, 8, 3)
    fars = [0.5, 0.1, 0.02, 1e-3]
    result = pfc.verification(left, right, issame, fars=fars, bootstrap=0)
    scores = (unit(left) * unit(right)).sum(axis=1)
    for row, far in zip(result.tar_at_far[:3], fars):
        tar, threshold, allowed = tar_at_far(scores, issame, far)
        assert (row.far, row.tar, row.impostors_allowed) == (far, tar, allowed)
        assert np.isclose(row.threshold, threshold)
    finer = result.tar_at_far[3]
    assert (finer.tar, finer.threshold, finer.impostors_allowed) == (None, None, 0)
    assert np.isclose(result.auc.value, auc(scores, issame))
    # Between two thresholds both error rates are linear, so they meet within a step of either.
    far = [(scores[~issame] >= t).mean() for t in np.sort(scores)]
    frr = [(scores[issame] < t).mean() for t in np.sort(scores)]
    nearest = np.argmin(np.abs(np.subtract(far, frr)))
    assert abs(result.eer.value - (far[nearest] + frr[nearest]) / 2) <= 1 / 200


def test_a_flat_array_is_pairs_one_after_the_other():
    left, right, issame = pairs(50, 8, 4)
    flat = np.stack([left, right], axis=1).reshape(100, 8)
    one = pfc.verification(left, right, issame, bootstrap=50)
    other = pfc.verification(flat, issame=issame.tolist(), bootstrap=50)
    assert one == other and np.array_equal(one.distances, other.distances)
    assert dataclasses.asdict(one)["pairs"] == 50


def test_people_of_pairs_are_linked_by_equal_images_and_genuine_pairs():
    a, b, c, d, e = np.eye(5)
    # a-b and b-c are one person, d another, e a third.
    result = pfc.verification([a, b, a, d], [b, c, d, e], [1, 1, 0, 0], folds=1, bootstrap=0)
    assert result.people == 3


def test_intervals_resample_people():
    """A pair per person: the standard error of a share is that of a coin."""
    left, right, issame = pairs(400, 4, 5, noise=2.0)
    people = (np.arange(400), np.where(issame, np.arange(400), np.arange(400) + 1000))
    result = pfc.verification(left, right, issame, folds=10, people=people)
    again = pfc.verification(left, right, issame, folds=10, people=people)
    assert result == again and result.people == 600
    low, high = result.accuracy_interval.low, result.accuracy_interval.high
    assert low < result.accuracy < high
    error = np.sqrt(result.accuracy * (1 - result.accuracy) / 400)
    assert 2 * error < high - low < 8 * error
    wide = pfc.verification(left, right, issame, people=people, confidence=0.99)
    assert wide.accuracy_interval.high - wide.accuracy_interval.low > high - low


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[1, 0]] * 3, [[1, 0]] * 2, [1, 0, 1]), "for 3 pairs"),
        (([[1, 0]] * 20, [[0, 1]] * 20, [2] * 20), "issame"),
        (([[1, 0]] * 20, [[0, 1]] * 20, [1.5] * 20), "issame"),
        (([[1, 0]] * 20, [[0, np.nan]] * 20, [1] * 20), "embeddings_b: embedding value 1 is NaN"),
        (([[1, 0]] * 20, [[0, 0]] * 20, [1] * 20), "row 0 of embeddings_b is all zeros"),
        (([[1, 0]] * 9, [[0, 1]] * 9, [1] * 9), "9 pairs cannot be split into 10 folds"),
        (([1, 0], [0, 1], [1]), "shape"),
        (([[1, 0]] * 9, None, [1] * 9), "9 embeddings for 9 pairs"),
        (([[1, 0]], [[1, 0]]), "issame is missing"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(pfc.PfcValueError) as error:
        pfc.verification(*arguments)
    assert said in str(error.value)


def test_rates_and_coverage_out_of_range_are_refused():
    left, right, issame = pairs(20, 4, 6)
    for options in ({"fars": [0]}, {"fars": [1]}, {"confidence": 1.0}, {"folds": 0}):
        with pytest.raises(pfc.PfcValueError):
            pfc.verification(left, right, issame, **options)


@pytest.mark.parametrize(
    "name", ["random600_d128", "lfwlike6000_d32", "hard300_d256", "uneven47_d16"]
)
def test_accuracies_match_the_references_golden(name):
    folder = golden("verification")
    arrays = safetensors(folder / f"{name}.safetensors")
    plain = json.loads((folder / f"{name}.json").read_text())["plain"]
    summed = arrays["embeddings"].astype(np.float64) + arrays["embeddings_flip"]
    result = pfc.verification(summed, issame=arrays["issame"], bootstrap=0)
    assert np.isclose(result.accuracy, plain["accuracy_mean"], rtol=0, atol=1e-12)
    assert np.isclose(result.accuracy_std, plain["accuracy_std"], rtol=0, atol=1e-12)
    found = [(fold["accuracy"], fold["best_threshold"]) for fold in plain["folds"]]
    assert np.allclose(result.folds, found, rtol=0, atol=1e-9)
    assert np.allclose(
        (result.val.val, result.val.std, result.val.far),
        (plain["val"], plain["val_std"], plain["far"]),
        rtol=0,
        atol=1e-12,
    )


def crowd(seed, n_people=30, dim=16, noise=0.9):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_people), random.integers(1, 6, n_people))
    random.shuffle(labels)
    centres = random.normal(size=(n_people, dim))
    rows = centres[labels] + noise * random.normal(size=(len(labels), dim))
    return rows.astype(np.float32), labels


def all_pairs(rows, labels):
    """Scores of all pairs in float32, and whether they are of one person."""
    norm = unit(rows).astype(np.float32)
    i, j = np.triu_indices(len(rows), 1)
    return (norm[i].astype(np.float64) * norm[j]).sum(axis=1), labels[i] == labels[j]


def test_all_pairs_are_compared():
    rows, labels = crowd(1)
    fars = [1e-1, 1e-2, 1e-3]
    (found,) = pfc.nn(rows, labels, fars=fars)
    scores, same = all_pairs(rows, labels)
    assert found.group is None and (found.faces, found.people) == (len(labels), 30)
    assert (found.genuine, found.impostor) == (same.sum(), (~same).sum())
    for row, far in zip(found.tar_at_far, fars):
        tar, threshold, allowed = tar_at_far(scores, same, far)
        assert np.isclose(row.tar, tar, rtol=0, atol=1e-12) and row.impostors_allowed == allowed
        assert np.isclose(row.threshold, threshold, rtol=0, atol=1e-6)
        assert row.interval.low <= row.tar <= row.interval.high


def test_groups_are_compared_within():
    rows, labels = crowd(2)
    groups = np.array(["north", "south", "west"])[labels % 3]
    found = pfc.nn(rows, [f"p{label}" for label in labels], groups, fars=[0.05], bootstrap=0)
    assert [row.group for row in found] == ["north", "south", "west", None]
    for row in found[:3]:
        inside = groups == row.group
        scores, same = all_pairs(rows[inside], labels[inside])
        tar, threshold, _ = tar_at_far(scores, same, 0.05)
        assert np.isclose(row.tar_at_far[0].tar, tar) and row.tar_at_far[0].interval is None
        assert np.isclose(row.tar_at_far[0].threshold, threshold, rtol=0, atol=1e-6)
    assert found[3].impostor > sum(row.impostor for row in found[:3])


def test_labels_that_make_no_sense_are_refused():
    rows, labels = crowd(3)
    with pytest.raises(pfc.PfcValueError):
        pfc.nn(rows, labels[1:])
    with pytest.raises(pfc.PfcValueError, match="in group"):
        pfc.nn(rows, np.zeros(len(rows)), np.arange(len(rows)))
    with pytest.raises(pfc.PfcValueError, match="no direction|not a finite number"):
        pfc.nn(np.full_like(rows, np.inf), labels)


def pooled(faces, templates, media, scores, unit_faces=False):
    """Templates by id, by the definition: means of media, added, divided by the norm."""
    faces = faces.astype(np.float64)
    if unit_faces:
        faces = unit(faces)
    faces = faces * np.asarray(scores, np.float64)[:, None]
    found = {}
    for template in np.unique(templates):
        rows = templates == template
        means = [faces[rows & (media == m)].mean(axis=0) for m in np.unique(media[rows])]
        found[template] = unit([np.sum(means, axis=0)])[0]
    return found


@pytest.mark.parametrize("unit_faces", [False, True])
def test_templates_are_pooled_and_compared(unit_faces):
    random = np.random.default_rng(7)
    n = 200
    faces = random.normal(size=(n, 12)).astype(np.float32)
    mirrored = faces + 0.1 * random.normal(size=(n, 12)).astype(np.float32)
    templates = random.integers(0, 25, n) * 3 + 1
    media = random.integers(0, 4, n)
    scores = random.uniform(0.5, 1, n).astype(np.float32)
    pairs = random.choice(np.unique(templates), (300, 2))
    issame = random.random(300) < 0.3
    found = pfc.ijb(
        faces,
        templates,
        media,
        pairs,
        issame,
        mirrored=mirrored,
        detector_scores=scores,
        unit_norm_faces=unit_faces,
        fars=[0.3, 0.01],
        bootstrap=20,
    )
    by_id = pooled(faces + mirrored, templates, media, scores, unit_faces)
    expected = np.array([by_id[a] @ by_id[b] for a, b in pairs])
    assert np.allclose(found.scores, expected, rtol=0, atol=1e-5)
    assert (found.templates, found.genuine) == (25, issame.sum()) and found.zero_templates == []
    assert [row.far for row in found.tar_at_far] == [0.01, 0.3]
    tar, threshold, allowed = tar_at_far(found.scores, issame, 0.3)
    row = found.tar_at_far[1]
    assert (row.tar, row.threshold, row.impostors_allowed) == (tar, threshold, allowed)
    assert np.isclose(found.auc, auc(found.scores, issame))
    assert found.auc_interval.low < found.auc < found.auc_interval.high


def test_pairs_of_templates_without_faces_are_refused():
    faces, ids = np.ones((4, 2)), np.array([1, 1, 2, 2])
    with pytest.raises(pfc.PfcValueError, match="template 9 has no face"):
        pfc.ijb(faces, ids, ids, [[1, 9]], [True])
    with pytest.raises(pfc.PfcValueError, match="no impostor pairs"):
        pfc.ijb(faces, ids, ids, [[1, 2]], [True])
    with pytest.raises(pfc.PfcValueError, match="template 2"):
        pfc.ijb(faces, ids, ids, [[1, 2], [1, 1]], [True, False], people=([1], [5]))
    with pytest.raises(pfc.PfcValueError, match="templates"):
        pfc.ijb(faces, ids - 2, ids, [[1, 2]], [True])
    for columns in (
        {"mirrored": np.ones((4, 3))},
        {"mirrored": np.ones((3, 2))},
        {"detector_scores": np.ones(3)},
        {"order": [0, 1, 2, 4]},
        {"order": [0, 1]},
    ):
        with pytest.raises(pfc.PfcValueError):
            pfc.ijb(faces, ids, ids, [[1, 2], [1, 1]], [True, False], **columns)
    with pytest.raises(pfc.PfcValueError):
        pfc.ijb(faces, ids, ids, [[1, 2], [1, 1]], [True])


@pytest.mark.parametrize("name", ["IJBC", "IJBB"])
def test_tables_match_the_references_golden(name):
    folder = golden("ijb") / name
    prefix = name.lower()
    arrays = safetensors(folder / "features.safetensors")
    meta = folder / "meta"
    templates, media = np.loadtxt(
        meta / f"{prefix}_face_tid_mid.txt", usecols=(1, 2), dtype=np.int64
    ).T
    scores = np.loadtxt(meta / f"{prefix}_name_5pts_score.txt", usecols=11, dtype=np.float32)
    listed = np.loadtxt(meta / f"{prefix}_template_pair_label.txt", dtype=np.int64)
    # f32 sums depend on the order of the faces; the reference's is that of their names.
    names = np.loadtxt(meta / f"{prefix}_face_tid_mid.txt", usecols=0, dtype=str)
    order = np.argsort([int(text.split(".")[0]) for text in names], kind="stable")
    for case in json.loads((folder / "expected.json").read_text())["one_to_one"]:
        found = pfc.ijb(
            arrays["embs"],
            templates,
            media,
            listed[:, :2],
            listed[:, 2] == 1,
            mirrored=arrays["embs_f"] if case["flip"] else None,
            detector_scores=scores if case["detector_score"] else None,
            unit_norm_faces=case["unit_norm_faces"],
            order=order,
            bootstrap=0,
        )
        for row, nearest, strict in zip(found.tar_at_far, case["nearest"], case["far_at_most"]):
            assert row.far == nearest["target"] == strict["target"]
            assert (row.nearest_tar, row.nearest_far) == (nearest["tpr"], nearest["fpr"])
            assert row.impostors_allowed == strict["false_accepts_allowed"]
            assert row.tar == strict["tpr"] and np.isclose(
                row.threshold, strict["threshold"], atol=1e-6
            )
        assert np.isclose(found.auc, case["auc"], rtol=0, atol=1e-9)
    default = np.load(folder / f"scores_{prefix}.npy")
    found = pfc.ijb(
        arrays["embs"],
        templates,
        media,
        listed[:, :2],
        listed[:, 2] == 1,
        mirrored=arrays["embs_f"],
        detector_scores=scores,
        order=order,
        bootstrap=0,
    )
    assert np.allclose(found.scores, default, rtol=0, atol=1e-6)
