"""The margin softmax head of Partial FC (arXiv 2010.05222) for a training loop in PyTorch."""

# G = global batch, B = this rank's part of it, D = embedding, C = classes of this rank.

from __future__ import annotations

import dataclasses
import math
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from . import _pfc
from ._collectives import Ranks
from ._errors import PfcValueError
from ._follow import follow, is_adam, numbers_of, scale_of
from ._gathered import Gathered
from ._margin import margin_of

#: Standard deviation of the initial centres, as in arcface_torch.
_INITIAL_DEVIATION = 0.01


class PartialFC(torch.nn.Module):
    """Loss of a batch of embeddings over a share of many classes, in place of arcface_torch's PartialFC_V2.

    >>> module_partial_fc = PartialFC(margin_loss, 512, num_classes, sample_rate)
    >>> opt = torch.optim.SGD([{"params": backbone.parameters()}, {"params": module_partial_fc.parameters()}],
    ...                       lr=0.1, momentum=0.9, weight_decay=5e-4)
    >>> loss = module_partial_fc(backbone(images), labels)
    >>> loss.backward()
    >>> opt.step()

    Loss and gradients are those of PartialFC_V2, the factor of the number of ranks in the gradient of the
    embeddings among them. The centres stay in the memory of the host and are computed on by the processor,
    in float32, wherever the embeddings are. With torch.distributed initialised each rank has its part of
    the classes, and all ranks call forward, backward and opt.step() together.

    `parameters()` gives one parameter of one number, the handle. Its gradient is the 2-norm of the gradient
    of this rank's centres, so that gradient clipping and GradScaler do to the centres what they do to it. When
    an optimizer that has it takes a step, the rows that the loss drew move as that optimizer moves a
    parameter, with lr, momentum and weight_decay of its parameter group as they are then, and its state
    holds their momentum. torch.optim.SGD and AdamW (and Adam without weight_decay) are followed.

    Args:
        margin_loss: a `pfc.torch.Margin`, or CombinedMarginLoss, ArcFace or CosFace as arcface_torch has them.
        embedding_size: numbers of an embedding, D.
        num_classes: number of classes over all ranks.
        sample_rate: share of the classes that a step draws, from 0 to 1, all classes of the batch among them;
            1 is the whole softmax.
        fp16: ignored: products are in float32.
        update: "dense" moves every row in every step, as PartialFC_V2 does since 2022: those that were not drawn
            take momentum and weight decay, which is made up for when they are drawn next. "sparse" moves the
            rows drawn alone, as Partial FC was published; AdamW needs it where sample_rate is below 1.
        seed: of the rows drawn, which are a function of seed, step and labels.
        sampler: a function (step, classes) in place of the random draw. It is given the number of the forward
            pass and the classes of the global batch, ascending int64, and returns the rows of this rank:
            whole numbers below num_local, ascending, with those of the batch among them.
        threads: that work on the centres; by default the cores, shared among the ranks of LOCAL_WORLD_SIZE.
        process_group: of the ranks; by default all of torch.distributed, if that is initialised.

    Attributes:
        rank, world_size: this process, and how many there are.
        num_local, class_start: number of classes of this rank, and the first of them.
        step: number of forward passes so far, which decides the rows drawn; state_dict carries it.

    Raises:
        PfcValueError: for values out of their bounds, or a margin_loss whose formula is not known.
    """

    _version = 2

    def __init__(
        self,
        margin_loss: Any,
        embedding_size: int,
        num_classes: int,
        sample_rate: float = 1.0,
        fp16: bool = False,
        *,
        update: str = "dense",
        seed: int = 2048,
        sampler: Callable[[int, np.ndarray], Any] | None = None,
        threads: int | None = None,
        process_group: Any = None,
    ) -> None:
        super().__init__()
        if update not in ("dense", "sparse"):
            raise PfcValueError(f"update is {update!r}", 'give "dense" or "sparse"')
        threads = _threads() if threads is None else threads
        _check_whole(embedding_size=embedding_size, num_classes=num_classes, seed=seed)
        _check_whole(1, threads=threads)
        self.margin = margin_of(margin_loss)
        self.embedding_size = embedding_size
        self.num_classes = num_classes
        self.sample_rate = float(sample_rate)
        self.fp16 = fp16
        self.update = update
        self.seed = seed
        self.sampler = sampler
        self.threads = threads
        self.step = 0
        self._ranks = Ranks(process_group)
        self.rank, self.world_size = self._ranks.rank, self._ranks.world
        self._head = self._new_head()
        self.num_local, self.class_start = self._head.num_local, self._head.first_class
        self.handle = torch.nn.Parameter(torch.zeros(1, 1, dtype=torch.float32, device="cpu"))
        # Drawn as PartialFC_V2 draws it, so that both begin alike from a seed of torch; into memory of NumPy, which
        # asks for large pages.
        shape = (self.num_local, embedding_size)
        self._weight = torch.from_numpy(np.empty(shape, np.float32))
        torch.normal(0.0, _INITIAL_DEVIATION, shape, out=self._weight)
        self._state = np.empty((self.num_local, 0), np.float32)
        self._stamps = np.full(self.num_local, self._head.stamp, np.uint32)
        self._forget()
        follow(self)

    def _new_head(self) -> Any:
        # Where every row is drawn, both updates are the same.
        is_dense = self.update == "dense" and self.sample_rate < 1
        margin = self.margin
        return _pfc.Head(
            (self.rank, self.world_size),
            (self.num_classes, self.embedding_size),
            (margin.name, list(map(float, margin.numbers))),
            (float(margin.s), float(margin.interclass_filter)),
            (self.sample_rate, self.seed),
            is_dense,
            self.threads,
        )

    def _forget(self) -> None:
        """Has no gradient and no optimizer."""
        self._pending: tuple[Any, float] | None = None
        self._hidden: torch.Tensor | None = None
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.handle.grad = None

    def forward(self, local_embeddings: torch.Tensor, local_labels: torch.Tensor) -> torch.Tensor:
        """The mean loss over the batch of all ranks, a float32 scalar on the device of the embeddings.

        Args:
            local_embeddings: (B, D) of any floating type and length; B may differ among ranks.
            local_labels: (B,) or (B, 1) of global class ids, from 0 to num_classes - 1.

        Raises:
            PfcValueError: on every rank, if the batch of one does not fit, a label is no class, or an
                embedding or the loss is not finite. No centre was moved.
        """
        step, device = self.step, local_embeddings.device
        batch = Gathered.of(self, local_embeddings, local_labels)
        drawn = self._draw(step, np.unique(batch.labels))
        arrays = self._arrays()
        work = self._head.begin(arrays, batch.embeddings, batch.labels, step, drawn)
        offsets = self._head.largest(arrays, work)
        if offsets is not None:
            self._ranks.largest(offsets, device)
        wants_gradient = torch.is_grad_enabled() and (
            local_embeddings.requires_grad or self.handle.requires_grad
        )
        sums = self._head.forward(
            arrays, work, None if offsets is None else offsets.tolist(), wants_gradient
        )
        self._ranks.add_up(sums, device)
        loss = work.join(sums)
        if not math.isfinite(loss):
            raise PfcValueError(
                f"the loss of step {step} is {loss}",
                "training has diverged: go back to a checkpoint with a lower lr, a longer warm-up or gradient "
                "clipping",
            )
        self.step += 1
        if not wants_gradient:
            self._head.recycle(work)
            return torch.tensor(loss, dtype=torch.float32, device=device)
        return _Loss.apply(local_embeddings, self.handle, _Backward(self, work, batch.own, loss))

    def _draw(self, step: int, classes: np.ndarray) -> np.ndarray:
        if self.sampler is None:
            return self._head.draw(step, classes)
        rows = np.asarray(self.sampler(step, classes)).reshape(-1)
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= 2**32):
            raise PfcValueError(
                f"the sampler gave rows of type {rows.dtype}, from {rows.min()} to {rows.max()}",
                "give whole numbers from 0",
            )
        return np.ascontiguousarray(rows, np.uint32)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._weight.numpy(), self._state, self._stamps

    # The gradient of the centres, between backward and opt.step().

    def _take_gradient(self, work: Any, factor: float) -> None:
        """Adds the gradient of a pass to the one that waits for the optimizer."""
        pending, left = self._pending, self._left()
        self._pending = None
        if pending is not None and left == 0.0:
            self._head.recycle(gradient=pending[0])
            pending = None
        gradient, squares = self._head.by_rows(self._arrays(), work, factor)
        if pending is not None:
            gradient, squares = self._head.sum(pending[0], left, gradient)
        norm = torch.full_like(self.handle, math.sqrt(squares))
        self._pending = (gradient, float(norm))
        self.handle.grad = norm

    def _left(self) -> float:
        """What the handle's gradient was multiplied by since it was set; 0 if it was cleared."""
        if self._pending is None or self.handle.grad is None:
            return 0.0
        norm, now = self._pending[1], float(self.handle.grad)
        return 1.0 if norm == 0.0 else now / norm

    def _before_step(self, optimizer: Any, group: dict[str, Any]) -> None:
        """Moves the centres, and hides the handle's gradient from the optimizer."""
        self._hidden = None
        if self.handle.grad is None:
            return
        if self._pending is not None:
            self._move(optimizer, group, self._pending[0])
        self._hidden, self.handle.grad = self.handle.grad, None

    def _move(self, optimizer: Any, group: dict[str, Any], gradient: Any) -> None:
        numbers = numbers_of(optimizer, group)
        left, scale, norm = self._left(), scale_of(optimizer), self.handle.grad
        if scale != 0.0 and norm is not None and not math.isfinite(float(norm)):
            raise PfcValueError(
                f"the gradient of the centres is not finite before step {self.step}",
                "lower lr or clip gradients; with fp16, step through torch.amp.GradScaler, which leaves such "
                "steps out",
            )
        self._share_state(optimizer, numbers)
        if scale != 0.0:
            self._head.step(self._arrays(), gradient, left * scale, numbers)
            if is_adam(optimizer):
                optimizer.state[self.handle]["step"] += 1

    def _after_step(self) -> None:
        if self._hidden is not None:
            self.handle.grad, self._hidden = self._hidden, None

    def _share_state(self, optimizer: Any, numbers: tuple[float, ...]) -> None:
        """Makes our momentum the optimizer's state of the handle; one that was loaded becomes ours."""
        dim, state = self.embedding_size, optimizer.state[self.handle]
        is_new = optimizer not in self._optimizers
        names = ["exp_avg", "exp_avg_sq"] if is_adam(optimizer) else ["momentum_buffer"]
        if self._state.shape[1] == 0:
            # Memory that the system hands out when a row first moves.
            self._state = np.zeros((self.num_local, len(names) * dim), np.float32)
        if self._state.shape[1] != len(names) * dim:
            raise PfcValueError(
                f"the centres cannot go on with {type(optimizer).__name__}",
                "another kind of optimizer has moved them before: load their state_dict into a new PartialFC",
            )
        whole = torch.from_numpy(self._state)
        ours = {name: whole[:, i * dim : (i + 1) * dim] for i, name in enumerate(names)}
        for name, tensor in ours.items():
            loaded = state.get(name)
            if loaded is not None and loaded.data_ptr() != tensor.data_ptr():
                self._load_state(name, tensor, loaded)
        if is_adam(optimizer):
            taken = state.setdefault("step", torch.tensor(0.0))
            self._head.set_stamp(int(taken) + 1)
        if numbers[1] != 0.0 or is_adam(optimizer):
            state.update(ours)
        if is_new:
            self._optimizers.add(optimizer)
            this = weakref.ref(self)
            optimizer.register_state_dict_pre_hook(lambda _: _catch_up(this()))

    def _load_state(self, name: str, ours: torch.Tensor, loaded: torch.Tensor) -> None:
        if loaded.shape != ours.shape:
            raise PfcValueError(
                f"{name} of the centres has the shape {tuple(loaded.shape)}, not {tuple(ours.shape)}",
                "load the optimizer's state of this rank, of a run with as many ranks and classes",
            )
        self.catch_up()
        ours.copy_(loaded)

    # The centres as others see them.

    def catch_up(self) -> None:
        """Applies the updates that were put off to all rows; `weight` and `state_dict` do it by themselves.

        Takes time in proportion to num_local. It changes nothing that a loss would show but rounding.
        """
        self._head.catch_up(self._arrays())

    @property
    def weight(self) -> torch.Tensor:
        """The centres of this rank, (num_local, D) float32 on the CPU, after all steps.

        It is the memory that the head works on: write to it in place to change them.
        """
        self.catch_up()
        return self._weight

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None:
            metadata.setdefault(prefix[:-1], {})["step"] = self.step

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = prefix + "weight"
        others = [key for key in state_dict if key.startswith(prefix) and key != name]
        if strict:
            unexpected_keys.extend(others)
        found = state_dict.get(name)
        if found is None:
            if strict:
                missing_keys.append(name)
        elif found.shape != self._weight.shape:
            error_msgs.append(
                f"size mismatch for {name}: the state dict has {tuple(found.shape)}, and rank {self.rank} of "
                f"{self.world_size} has {tuple(self._weight.shape)}: load the file of this rank, of a run "
                "with as many ranks and classes"
            )
        else:
            self.catch_up()
            self._weight.copy_(found)
            self.step = int(local_metadata.get("step", self.step))

    def extra_repr(self) -> str:
        """What print shows of it."""
        return (
            f"{self.margin}, embedding_size={self.embedding_size}, num_classes={self.num_classes}, "
            f"sample_rate={self.sample_rate}, update={self.update!r}, rank={self.rank} of {self.world_size}"
        )

    def __getstate__(self) -> dict[str, Any]:
        self.catch_up()
        left_out = ("_head", "_pending", "_hidden", "_optimizers")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._head = self._new_head()
        self._stamps = np.full(self.num_local, self._head.stamp, np.uint32)
        self._forget()
        follow(self)


PartialFC.__module__ = "pfc.torch"


@dataclasses.dataclass(frozen=True)
class _Backward:
    """What the backward pass of a loss needs."""

    head: PartialFC
    work: Any
    own: slice
    loss: float

    def run(self, factor: float, like: torch.Tensor, wants: tuple[bool, bool]) -> Any:
        """The gradient by the embeddings, `like` them, or None; that by the centres waits in the head."""
        gradient = None
        if wants[0]:
            # As in PartialFC_V2: whoever averages gradients over the ranks divides by their number.
            parts = self.work.by_embeddings(self.head._head, factor * self.head.world_size)
            self.head._ranks.add_up(parts, like.device)
            gradient = torch.from_numpy(parts[self.own]).to(like.device, like.dtype)
        if wants[1]:
            self.head._take_gradient(self.work, factor)
        self.head._head.recycle(self.work)
        return gradient


class _Loss(torch.autograd.Function):
    """A loss that was computed before, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: torch.Tensor, handle: torch.Tensor, backward: _Backward
    ) -> torch.Tensor:
        ctx.run = backward
        ctx.like = torch.empty(0, dtype=embeddings.dtype, device=embeddings.device)
        return torch.tensor(backward.loss, dtype=torch.float32, device=embeddings.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: torch.Tensor) -> tuple[Any, None, None]:
        wants = ctx.needs_input_grad
        return ctx.run.run(float(by_loss), ctx.like, (wants[0], wants[1])), None, None


def _check_whole(least: int = 0, **values: int) -> None:
    for name, value in values.items():
        if not least <= value < 2**64:
            raise PfcValueError(f"{name} is {value}", f"give a whole number from {least}")


def _catch_up(head: PartialFC | None) -> None:
    if head is not None:
        head.catch_up()


def _threads() -> int:
    """This rank's share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1)))
