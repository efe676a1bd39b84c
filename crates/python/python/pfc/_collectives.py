"""What the ranks of a head exchange, through the process group that the user has."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed

#: Backends that exchange tensors in the memory of the host.
_OF_HOST = ("gloo", "mpi", "ucc", "undefined")


class Ranks:
    """A process group, or one process alone.

    Every rank calls the same methods in the same order.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.is_one = not (distributed.is_available() and distributed.is_initialized())
        self.rank = 0 if self.is_one else distributed.get_rank(group)
        self.world = 1 if self.is_one else distributed.get_world_size(group)

    def _device(self, of: torch.device) -> torch.device:
        """Where tensors are exchanged: in the memory of the host, or on the device `of`."""
        backend = str(distributed.get_backend(self.group)).lower()
        return torch.device("cpu") if any(name in backend for name in _OF_HOST) else of

    def gather(self, rows: torch.Tensor, n_rows: list[int] | None = None) -> torch.Tensor:
        """Every rank's `rows`, one after the other.

        Args:
            rows: (B, ...), of any B on each rank if `n_rows` says how many.
            n_rows: B of each rank.
        """
        if self.is_one:
            return rows
        rows = rows.to(self._device(rows.device))
        n_most = len(rows) if n_rows is None else max(n_rows)
        padded = rows.new_zeros((n_most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        of_ranks = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(of_ranks, padded, group=self.group)
        if n_rows is not None:
            of_ranks = [of_rank[:n] for of_rank, n in zip(of_ranks, n_rows)]
        return torch.cat(of_ranks)

    def add_up(self, values: np.ndarray, near: torch.device) -> None:
        """Puts the sum over the ranks into `values`, which `near` is the device to exchange them on."""
        self._reduce(values, near, "SUM")

    def largest(self, values: np.ndarray, near: torch.device) -> None:
        """Puts the largest value over the ranks into each of `values`."""
        self._reduce(values, near, "MAX")

    def _reduce(self, values: np.ndarray, near: torch.device, operation: str) -> None:
        if self.is_one:
            return
        here = torch.from_numpy(values)
        there = here.to(self._device(near))
        distributed.all_reduce(there, getattr(distributed.ReduceOp, operation), group=self.group)
        if there.data_ptr() != here.data_ptr():
            here.copy_(there)
