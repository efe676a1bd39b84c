"""Helpers for PyTorch, which has to be installed; nothing of pfc links to it.

>>> import torch, pfc, pfc.torch
>>> ds = pfc.Dataset("work/glint360k.pfc")
>>> loader = torch.utils.data.DataLoader(ds, 128, shuffle=True, num_workers=4, collate_fn=pfc.torch.collate)
>>> for images, labels in loader:      # (128, H, W, 3) uint8, (128,) int64
...     x = pfc.torch.normalise(images.to("cuda", non_blocking=True))      # (128, 3, H, W) float32

`PartialFC` takes the place of arcface_torch's PartialFC_V2 in a training loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from . import Dataset, PfcValueError
from ._margin import Margin
from ._partial_fc import PartialFC

__all__ = ["Margin", "PartialFC", "TrainingOrder", "collate", "normalise", "tensors"]


def collate(items: Sequence[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes a batch of what a DataLoader read from a Dataset, for its `collate_fn`.

    The images of a Dataset's batch are parts of one array, which becomes the tensor without a copy.

    Returns:
        images (N, H, W, 3) uint8, and labels (N,) int64.
    """
    labels = torch.tensor([label for _, label in items], dtype=torch.int64)
    images = [image for image, _ in items]
    whole = images[0].base
    is_whole = (
        isinstance(whole, np.ndarray)
        and whole.shape == (len(images), *images[0].shape)
        and all(image.base is whole for image in images)
        and all(
            _address(image) == _address(whole) + i * image.nbytes for i, image in enumerate(images)
        )
    )
    return torch.from_numpy(whole if is_whole else np.stack(images)), labels


def tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of `Dataset.batches` as tensors that share its memory: images uint8, labels int64."""
    images, labels = batch
    return torch.from_numpy(images), torch.from_numpy(labels)


def normalise(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(x - 127.5) / 127.5 of images of uint8, on their device: what networks of InsightFace take.

    Args:
        images: (N, H, W, 3) uint8, or (N, 3, H, W) uint8.
        dtype: of the result.

    Returns:
        (N, 3, H, W), from -1 to 1; of (N, H, W, 3) it is a view in the memory format channels_last.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise PfcValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}",
            "give uint8 of shape (N, H, W, 3) or (N, 3, H, W)",
        )
    if images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images.to(dtype).sub_(127.5).div_(127.5)


class TrainingOrder(Sampler[int]):
    """A sampler that visits a Dataset as pfc-train does, in place of DistributedSampler.

    The order is a function of seed and epoch alone: rank takes every world-th row of it. Call
    `set_epoch` before each epoch.

    Args:
        dataset: what is read.
        seed: of the order.
        rank, world: this process and how many there are; by default those of torch.distributed where it
            is initialised, else 0 and 1.
        drop_last: leave out the last rows, so that all ranks have as many.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        *,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.dataset = dataset
        self.seed = seed
        self.epoch = 0
        self.rank = (torch.distributed.get_rank() if distributed else 0) if rank is None else rank
        default = torch.distributed.get_world_size() if distributed else 1
        self.world = default if world is None else world
        self.drop_last = drop_last

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.world if self.drop_last else -(-(n - self.rank) // self.world)

    def __iter__(self) -> Iterator[int]:
        order: Any = self.dataset.order(
            self.seed, self.epoch, self.rank, self.world, stop=len(self)
        )
        return iter(order.tolist())


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
