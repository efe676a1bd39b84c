"""Margins for `pfc.torch.PartialFC`: our own, and those of arcface_torch by what they say of themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ._errors import PfcValueError


@dataclasses.dataclass(frozen=True)
class Margin:
    """A margin, a scale and a filter; `cosface`, `arcface` and `combined` make one.

    With cos the cosine of an embedding and a class centre, theta its angle, a logit is s * cos, and that of
    the sample's own class s * psi.

    Attributes:
        name: "cosface", "arcface", "arcface straight through" or "combined".
        numbers: the margins, as many as the name takes, then 0.
        s: the factor that turns cosines into logits, above 0 and at most 10,000.
        interclass_filter: cosine above which another class is taken for label noise: it enters as cosine 0
            and passes no gradient; 0 for no such bound.
    """

    name: str
    numbers: tuple[float, float, float]
    s: float = 64.0
    interclass_filter: float = 0.0

    @classmethod
    def cosface(cls, m: float = 0.4, s: float = 64.0, *, interclass_filter: float = 0.0) -> Margin:
        """psi = cos - m (arXiv 1801.09414), m from 0 to 2."""
        return cls("cosface", (m, 0.0, 0.0), s, interclass_filter)

    @classmethod
    def arcface(
        cls,
        m: float = 0.5,
        s: float = 64.0,
        *,
        straight_through: bool = False,
        interclass_filter: float = 0.0,
    ) -> Margin:
        """psi = cos(theta + m) (arXiv 1801.07698), m from 0 to pi radians.

        Its derivative is the exact one, and past theta + m = pi it goes on falling; straight_through takes
        1 and no such guard, as arcface_torch does.
        """
        name = "arcface straight through" if straight_through else "arcface"
        return cls(name, (m, 0.0, 0.0), s, interclass_filter)

    @classmethod
    def combined(
        cls, m1: float, m2: float, m3: float, s: float = 64.0, *, interclass_filter: float = 0.0
    ) -> Margin:
        """psi = cos(m1 * theta + m2) - m3, m2 in radians, with its exact derivative."""
        return cls("combined", (m1, m2, m3), s, interclass_filter)


def margin_of(loss: Any) -> Margin:
    """The margin that `loss` stands for: a Margin, or an object as arcface_torch's losses.py has them."""
    if isinstance(loss, Margin):
        return loss
    names = {kind.__name__ for kind in type(loss).__mro__}
    margin = None
    if "CombinedMarginLoss" in names:
        margin = _combined(loss)
    elif "ArcFace" in names:
        margin = Margin.arcface(float(loss.margin), float(loss.s), straight_through=True)
    elif "CosFace" in names:
        margin = Margin.cosface(float(loss.m), float(loss.s))
    if margin is None:
        raise PfcValueError(
            f"margin_loss is a {type(loss).__name__}, whose formula is not known",
            "give CombinedMarginLoss, ArcFace or CosFace of arcface_torch, or a pfc.torch.Margin",
        )
    if not _computes(loss, margin):
        raise PfcValueError(
            f"margin_loss is called {type(loss).__name__}, but computes something else than arcface_torch's",
            "give the pfc.torch.Margin that it stands for",
        )
    return margin


def _combined(loss: Any) -> Margin | None:
    s, m1, m2, m3 = (float(getattr(loss, name)) for name in ("s", "m1", "m2", "m3"))
    noise = float(getattr(loss, "interclass_filtering_threshold", 0.0))
    if m1 == 1.0 and m3 == 0.0:
        return Margin.arcface(m2, s, straight_through=True, interclass_filter=noise)
    if m3 > 0:
        return Margin.cosface(m3, s, interclass_filter=noise)
    raise PfcValueError(
        f"CombinedMarginLoss has m1 = {m1:g}, m2 = {m2:g}, m3 = {m3:g}, for which it has no loss",
        "give m1 = 1 and m3 = 0 (ArcFace), or m3 above 0 (CosFace)",
    )


def _computes(loss: Any, margin: Margin) -> bool:
    """Whether `loss` turns a few cosines into the logits that `margin` stands for."""
    cosines = torch.tensor([[0.7, -0.3, 0.1], [-0.6, 0.2, 0.55], [0.35, 0.9, -0.8]])
    labels = torch.tensor([[0], [2], [-1]])
    expected = cosines.clone()
    if margin.interclass_filter > 0:
        expected[expected > margin.interclass_filter] = 0.0
    m = margin.numbers[0]
    for row, label in ((0, 0), (1, 2)):
        own = cosines[row, label]
        expected[row, label] = own - m if margin.name == "cosface" else torch.cos(own.arccos() + m)
    with torch.no_grad():
        found = loss(cosines.clone(), labels.clone())
    return torch.allclose(found.float().cpu(), margin.s * expected, atol=1e-4 * abs(margin.s), rtol=0)


Margin.__module__ = "pfc.torch"
