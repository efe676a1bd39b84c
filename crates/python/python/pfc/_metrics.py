"""The figures of face recognition from arrays, as `pfc-eval` computes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _pfc
from ._errors import PfcValueError
from ._results import (
    IjbResult,
    IjbTar,
    NnGroup,
    Val,
    VerificationResult,
    figure,
    interval,
    tars,
)


def verification(
    embeddings_a: Any,
    embeddings_b: Any = None,
    issame: Any = None,
    folds: int = 10,
    *,
    fars: Iterable[float] = (1e-1, 1e-2, 1e-3),
    people: tuple[Any, Any] | None = None,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> VerificationResult:
    """Judges pairs by LFW's protocol: accuracy over folds, VAL, TAR at FAR, AUC, EER.

    Call it with two arrays, `verification(a, b, issame)`, or with the embeddings of a pack one after
    the other, as insightface does, `verification(embeddings, issame=issame)`: rows 2 * i and 2 * i + 1
    are pair i then.

    A pair is accepted when the squared L2 distance of its embeddings, divided by their norms, is below
    a threshold; thresholds are 0, 0.01 ... 3.99. Folds are contiguous, and each is judged by the
    threshold that is best on the others. What papers print is of the sum of the embeddings of a face
    and of its mirror image: add them before the call.

    Args:
        embeddings_a: (P, D) floats, of any norm; or (2 * P, D) without embeddings_b.
        embeddings_b: (P, D) floats.
        issame: (P,) booleans, whether a pair shows one person.
        folds: how many, 10 by the protocol; 1 judges all pairs by the threshold that is best on them.
        fars: false accept rates, between 0 and 1, to read TAR at.
        people: two arrays (P,) of who is on the left and on the right, in numbers or names, for the
            intervals. By default equal embeddings are one image, and images of genuine pairs show one
            person; intervals may then be too narrow.
        bootstrap: resampled sets that the intervals come from; 0 leaves them out.
        confidence: coverage of the intervals.
        seed: of the resampling: the same seed gives the same intervals.

    Raises:
        PfcValueError: for arrays of other shapes, values that are not finite, rows of zeros, or fewer
            pairs than folds.
    """
    if issame is None:
        raise PfcValueError("issame is missing", "give verification(a, b, issame)")
    same = _column("issame", issame, np.bool_)
    if embeddings_b is None:
        both = _rows("embeddings_a", embeddings_a, np.float64)
        if len(both) != 2 * len(same):
            raise PfcValueError(
                f"{len(both)} embeddings for {len(same)} pairs",
                "without embeddings_b, rows 2 * i and 2 * i + 1 are pair i",
            )
        left, right = both[0::2], both[1::2]
    else:
        left = _rows("embeddings_a", embeddings_a, np.float64)
        right = _rows("embeddings_b", embeddings_b, np.float64)
        if left.shape != right.shape or len(left) != len(same):
            raise PfcValueError(
                f"embeddings of shape {left.shape} and {right.shape} for {len(same)} pairs",
                "give two arrays of shape (P, D) and P booleans",
            )
    found = _pfc.verification(
        np.ascontiguousarray(left),
        np.ascontiguousarray(right),
        same,
        None if people is None else _pairs_of_people(people, len(same)),
        folds,
        list(fars),
        (bootstrap, confidence, seed),
    )
    val = found["val"]
    return VerificationResult(
        **{
            **found,
            "accuracy_interval": interval(found["accuracy_interval"]),
            "val": None if val is None else Val(val[0], val[1], val[2], interval(val[3])),
            "auc": figure(found["auc"]),
            "eer": figure(found["eer"]),
            "tar_at_far": tars(found["tar_at_far"]),
        }
    )


def nn(
    embeddings: Any,
    labels: Any,
    groups: Any = None,
    *,
    fars: Iterable[float] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4),
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[NnGroup]:
    """Compares all faces of a labelled set with each other, as the multi-racial benchmark does.

    Every pair of two faces counts, genuine if of one person. Scores are the cosines in float32, counted
    by exact value, so that memory stays bounded: N * N * D / 2 multiply-adds, a minute for 100,000 faces
    of 512 numbers on two cores.

    Args:
        embeddings: (N, D) floats, of any norm.
        labels: (N,) who each face is, in numbers or names.
        groups: (N,) the group of each face (a race label, say); a person is in one group.
        fars: false accept rates, between 0 and 1, to read TAR at.
        bootstrap, confidence, seed: of the intervals, as in `verification`. Thresholds stay.

    Returns:
        A row for each group, if there are several, by their order, then one of all faces.

    Raises:
        PfcValueError: for columns of other lengths, values that are not finite, or a person in two
            groups.
    """
    features = _rows("embeddings", embeddings, np.float32)
    _, identity = np.unique(_column("labels", labels), return_inverse=True)
    # Without groups all faces are of one.
    column = np.zeros(len(features), np.uint32) if groups is None else _column("groups", groups)
    names, group = np.unique(column, return_inverse=True)
    found = _pfc.nn(
        features,
        identity.reshape(-1).astype(np.uint32),
        np.ascontiguousarray(group.reshape(-1), dtype=np.uint32),
        len(names),
        list(fars),
        (bootstrap, confidence, seed),
    )
    for row in found:
        row["group"] = None if row["group"] is None else names[row["group"]].item()
        row["tar_at_far"] = tars(row["tar_at_far"])
    return [NnGroup(**row) for row in found]


def ijb(
    embeddings: Any,
    templates: Any,
    media: Any,
    pairs: Any,
    issame: Any,
    *,
    mirrored: Any = None,
    detector_scores: Any = None,
    unit_norm_faces: bool = False,
    unit_norm_media: bool = False,
    people: tuple[Any, Any] | None = None,
    order: Any = None,
    fars: Iterable[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> IjbResult:
    """The 1:1 protocol of IJB-B and IJB-C: faces pooled to templates, and pairs of these judged.

    The faces of a media (a video, or a still) are averaged, the media of a template added up, and the
    sum divided by its norm. With mirrored and detector_scores it is what published tables use.

    Args:
        embeddings: (F, D) floats of the faces as they are, not normalised.
        templates: (F,) whole numbers, id of the template that a face is in.
        media: (F,) whole numbers, id of the media; unique within a template.
        pairs: (P, 2) ids of templates.
        issame: (P,) booleans.
        mirrored: (F, D) floats of the mirrored faces, which are added.
        detector_scores: (F,) confidence of the face detector, which weighs the faces.
        unit_norm_faces: divide each face by its norm first.
        unit_norm_media: divide the mean of each media by its norm.
        people: two arrays (T,), ids of templates and who they are, for the intervals; by default
            templates are resampled.
        order: (F,) a permutation of the faces: the order in which they are added. By default as given.
        fars: false accept rates to read TAR at.
        bootstrap, confidence, seed: of the intervals, as in `verification`. Of IJB-C's 15.7 million
            pairs 1000 resampled sets take minutes; 0 leaves them out.

    Raises:
        PfcValueError: for columns of other lengths, values that are not finite, or a pair of a template
            that has no face.
    """
    faces = _rows("embeddings", embeddings, np.float32)
    n = len(faces)
    scores = np.ones(n, np.float32)
    if detector_scores is not None:
        scores = _column("detector_scores", detector_scores, np.float32)
    pairs = np.ascontiguousarray(pairs, dtype=np.uint64)
    if pairs.ndim != 2 or pairs.shape[1:] != (2,):
        raise PfcValueError(f"pairs have the shape {pairs.shape}", "give an array of shape (P, 2)")
    same = _column("issame", issame, np.bool_)
    who = None
    if people is not None:
        ids, persons = (_column("people", column) for column in people)
        _, numbers = np.unique(persons, return_inverse=True)
        who = np.stack([ids.astype(np.uint64), numbers.reshape(-1).astype(np.uint64)], axis=1)
    columns = {
        "original": faces,
        "mirrored": None if mirrored is None else _rows("mirrored", mirrored, np.float32),
        "detector_score": scores,
        "template": _column("templates", templates, np.uint64),
        "media": _column("media", media, np.uint64),
        "order": np.arange(n, dtype=np.uint32)
        if order is None
        else _column("order", order, np.uint32),
    }
    lists = {"templates": pairs, "same": same, "people": who}
    pooling = (unit_norm_faces, detector_scores is not None, unit_norm_media)
    found = _pfc.ijb(columns, lists, pooling, list(fars), (bootstrap, confidence, seed))
    return IjbResult(
        **{
            **found,
            "tar_at_far": tars(found["tar_at_far"], IjbTar),
            "auc_interval": interval(found["auc_interval"]),
        }
    )


def _rows(name: str, values: Any, dtype: Any) -> np.ndarray:
    """A contiguous array of two axes."""
    rows = np.ascontiguousarray(values, dtype=dtype)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise PfcValueError(
            f"{name} has the shape {rows.shape}", "give an array of shape (N, D), a row a face"
        )
    return rows


def _column(name: str, values: Any, dtype: Any = None) -> np.ndarray:
    """A contiguous array of one axis; numbers are never rounded to fit the type."""
    column = np.asarray(values)
    if column.ndim != 1:
        raise PfcValueError(f"{name} has the shape {column.shape}", "give an array of one axis")
    if dtype is None or column.dtype == dtype:
        return np.ascontiguousarray(column)
    cast = np.ascontiguousarray(column, dtype=dtype)
    if np.dtype(dtype).kind != "f" and not np.array_equal(cast, column):
        raise PfcValueError(
            f"{name} holds values that are no {np.dtype(dtype).name}",
            "give booleans, or whole numbers from 0",
        )
    return cast


def _pairs_of_people(people: tuple[Any, Any], n_pairs: int) -> np.ndarray:
    """(P, 2), people numbered from 0 by their order."""
    left, right = (_column("people", side) for side in people)
    if len(left) != n_pairs or len(right) != n_pairs:
        raise PfcValueError(
            f"{len(left)} and {len(right)} people for {n_pairs} pairs",
            "give two arrays with who is on the left and on the right of each pair",
        )
    _, numbers = np.unique(np.concatenate([left, right]), return_inverse=True)
    return np.ascontiguousarray(numbers.reshape(2, -1).T, dtype=np.uint32)
