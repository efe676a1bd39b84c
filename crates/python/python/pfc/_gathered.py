"""The batch of all ranks of a head, and what may be wrong with it."""

# G = global batch, B = this rank's part of it, D = embedding.

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import torch

from ._errors import PfcValueError


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The batch of all ranks, checked."""

    #: (G, D) float32
    embeddings: np.ndarray
    #: (G,) int64
    labels: np.ndarray
    #: This rank's rows.
    own: slice

    @staticmethod
    def of(head: Any, embeddings: torch.Tensor, labels: torch.Tensor) -> Gathered:
        """Collects it; what is wrong with one rank's part is an error on all of them."""
        step, ranks, dim = head.step, head._ranks, head.embedding_size
        labels = labels.detach().reshape(-1).long().to(embeddings.device)
        problem = None
        if embeddings.ndim != 2 or embeddings.shape != (len(labels), dim):
            problem = (
                f"step {step}: embeddings of shape {tuple(embeddings.shape)} with {len(labels)} labels",
                f"give embeddings of shape (B, {dim}) and B labels",
            )
        facts = [-1 if problem else len(labels), step, _fingerprint(head)]
        facts = ranks.gather(torch.tensor([facts], device=embeddings.device)).tolist()
        n_rows = _check_ranks(facts, step, problem)
        rows = ranks.gather(embeddings.detach().float(), n_rows)
        gathered = ranks.gather(labels, n_rows)
        begin = sum(n_rows[: ranks.rank])
        batch = Gathered(
            np.ascontiguousarray(rows.cpu().numpy()),
            np.ascontiguousarray(gathered.cpu().numpy()),
            slice(begin, begin + n_rows[ranks.rank]),
        )
        batch._check(n_rows, step, head.num_classes)
        return batch

    def _check(self, n_rows: list[int], step: int, num_classes: int) -> None:
        if not len(self.labels):
            raise PfcValueError(f"step {step}: the batch is empty on every rank", "give a row or more")
        is_bad = (self.labels < 0) | (self.labels >= num_classes)
        if is_bad.any():
            at = int(is_bad.argmax())
            raise PfcValueError(
                f"step {step}: {_place(at, n_rows)} has label {self.labels[at]}, but the head has "
                f"{num_classes} classes",
                f"labels run from 0 to {num_classes - 1}",
            )
        is_bad = ~np.isfinite(self.embeddings).all(axis=1)
        if is_bad.any():
            raise PfcValueError(
                f"step {step}: the embedding of {_place(int(is_bad.argmax()), n_rows)} is not finite",
                "training has diverged: go back to a checkpoint with a lower lr, a longer warm-up or gradient "
                "clipping",
            )


def _check_ranks(
    facts: list[list[int]], step: int, problem: tuple[str, str] | None
) -> list[int]:
    """The number of rows of each rank, if all can go on together."""
    if problem is not None:
        raise PfcValueError(*problem)
    for rank, (n_rows, its_step, fingerprint) in enumerate(facts):
        if n_rows < 0:
            raise PfcValueError(
                f"step {step}: rank {rank} cannot take part",
                "its own error says why: most often its embeddings and labels do not go together",
            )
        if its_step != facts[0][1]:
            raise PfcValueError(
                f"rank {rank} is at step {its_step}, rank 0 at step {facts[0][1]}",
                "call forward equally often on all ranks, and load state dicts of one checkpoint",
            )
        if fingerprint != facts[0][2]:
            raise PfcValueError(
                f"rank {rank} has a head of other arguments than rank 0",
                "make PartialFC with the same margin, sizes, sample_rate, update and seed on all ranks",
            )
    return [n_rows for n_rows, _, _ in facts]


def _place(at: int, n_rows: list[int]) -> str:
    """Row and rank of a row of the global batch."""
    for rank, n in enumerate(n_rows):
        if at < n:
            return f"row {at} of rank {rank}"
        at -= n
    raise AssertionError


def _fingerprint(head: Any) -> int:
    arguments = (head.margin, head.embedding_size, head.num_classes, head.sample_rate)
    return zlib.crc32(repr((*arguments, head.update, head.seed)).encode())
