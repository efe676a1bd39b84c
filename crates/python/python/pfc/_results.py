"""What the figures are. All are plain values: `dataclasses.asdict` makes them ready for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """A confidence interval by resampling people, of the unit of its figure."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with its interval, which is None where there is none."""

    value: float
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class TarAtFar:
    """The share of genuine pairs accepted where at most `far` of the impostor pairs are.

    Attributes:
        far: false accept rate asked for, from 0 to 1.
        tar: share of genuine pairs whose similarity is above the threshold, from 0 to 1; None where the
            pairs cannot tell.
        interval: of tar.
        threshold: cosine similarity, from -1 to 1, that a pair must exceed.
        impostors_allowed: how many impostor pairs `far` is: the figure rests on that many. 0 is a rate
            finer than the data.
    """

    far: float
    tar: float | None
    interval: Interval | None
    threshold: float | None
    impostors_allowed: int


@dataclasses.dataclass(frozen=True)
class Val:
    """VAL at a false accept rate of 1e-3, as FaceNet and InsightFace define it.

    Attributes:
        val: share of genuine pairs accepted, mean over the folds.
        std: standard deviation over the folds.
        far: share of impostor pairs accepted, mean over the folds.
        interval: of val.
    """

    val: float
    std: float
    far: float
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class VerificationResult:
    """The figures of a list of pairs.

    Attributes:
        pairs, genuine, impostor: number of pairs: all, of one person, of two.
        people: number of people, as they were given or taken from the pairs.
        accuracy: share of pairs judged rightly, mean over the folds.
        accuracy_std: population standard deviation over the folds; None with one fold.
        accuracy_interval: of accuracy.
        threshold: squared L2 distance of unit embeddings, from 0 to 4, below which a pair is accepted;
            mean over the folds.
        folds: accuracy and threshold of each; empty with one fold.
        val: of folds with both classes, else None.
        auc: chance that a genuine pair scores above an impostor pair.
        eer: rate at which false accepts and false rejects are equally frequent.
        tar_at_far: a row for each rate asked for.
        distances: (P,) float64, squared L2 distance of each pair's unit embeddings. The cosine is
            1 - distances / 2.
    """

    pairs: int
    genuine: int
    impostor: int
    people: int
    accuracy: float
    accuracy_std: float | None
    accuracy_interval: Interval | None
    threshold: float
    folds: list[tuple[float, float]]
    val: Val | None
    auc: Figure | None
    eer: Figure | None
    tar_at_far: list[TarAtFar]
    distances: np.ndarray = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class NnGroup:
    """The figures of a group of an N:N comparison, or of all faces.

    Attributes:
        group: what was given for it; None for all faces, pairs across groups included.
        faces, people: how many there are in it.
        genuine, impostor: pairs of two faces of one person, and of two people.
        tar_at_far: a row for each rate asked for.
    """

    group: Any
    faces: int
    people: int
    genuine: int
    impostor: int
    tar_at_far: list[TarAtFar]


@dataclasses.dataclass(frozen=True)
class IjbTar:
    """TAR at a false accept rate, read in two ways.

    Attributes:
        far: false accept rate asked for.
        nearest_tar, nearest_far: the point of scikit-learn's curve whose false accept rate is nearest
            to far, which is what papers print.
        tar: share of genuine pairs accepted where at most far of the impostor pairs are.
        interval: of tar.
        threshold: cosine similarity that a pair must exceed for tar.
        impostors_allowed: how many impostor pairs far is. At 0 the best impostor sets the threshold.
    """

    far: float
    nearest_tar: float
    nearest_far: float
    tar: float
    interval: Interval | None
    threshold: float
    impostors_allowed: int


@dataclasses.dataclass(frozen=True)
class IjbResult:
    """The 1:1 figures of IJB-B or IJB-C.

    Attributes:
        templates: number of templates that have faces.
        genuine, impostor: pairs of templates of one person, and of two.
        tar_at_far: a row for each rate, rising.
        auc: area under the ROC curve.
        auc_interval: of auc.
        zero_templates: ids of templates whose faces add up to zero; they score 0.
        scores: (P,) float64, cosine similarity of each pair.
    """

    templates: int
    genuine: int
    impostor: int
    tar_at_far: list[IjbTar]
    auc: float
    auc_interval: Interval | None
    zero_templates: list[int]
    scores: np.ndarray = dataclasses.field(repr=False, compare=False)


def interval(ends: tuple[float, float] | None) -> Interval | None:
    """The interval of two ends."""
    return None if ends is None else Interval(*ends)


def figure(found: tuple[float, tuple[float, float] | None] | None) -> Figure | None:
    """The figure of a value and the ends of its interval."""
    return None if found is None else Figure(found[0], interval(found[1]))


def tars(rows: list[dict[str, Any]], kind: type = TarAtFar) -> list[Any]:
    """The rows of a table."""
    return [kind(**{**row, "interval": interval(row["interval"])}) for row in rows]
