"""How the centres of a head follow the optimizer that its parameter was given to.

A head has one parameter of one number, its handle. Hooks that torch calls before and after every step of every
optimizer find out whether the handle is one of its parameters.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ._errors import PfcValueError

#: The heads of this process.
_heads: weakref.WeakSet[Any] = weakref.WeakSet()
_is_hooked = False


def follow(head: Any) -> None:
    """Has the head told of steps: `_before_step(optimizer, group)` and `_after_step()`."""
    global _is_hooked
    _heads.add(head)
    if not _is_hooked:
        register_optimizer_step_pre_hook(_before)
        register_optimizer_step_post_hook(_after)
        _is_hooked = True


def _before(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for head in tuple(_heads):
        group = _group_of(optimizer, head.handle)
        if group is None:
            continue
        if (args[1] if len(args) > 1 else kwargs.get("closure")) is not None:
            raise PfcValueError(
                "opt.step(closure) would compute the gradient of the centres after they have moved",
                "call loss.backward(), then opt.step() without a closure",
            )
        head._before_step(optimizer, group)


def _after(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for head in tuple(_heads):
        if _group_of(optimizer, head.handle) is not None:
            head._after_step()


def _group_of(optimizer: Any, handle: torch.Tensor) -> dict[str, Any] | None:
    for group in optimizer.param_groups:
        if any(parameter is handle for parameter in group["params"]):
            return group
    return None


def is_adam(optimizer: Any) -> bool:
    """Whether the optimizer keeps two moments, rather than a momentum."""
    return isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))


def numbers_of(optimizer: Any, group: dict[str, Any]) -> tuple[float, ...]:
    """What a step of SGD takes, (lr, momentum, weight_decay), or of AdamW, (lr, beta1, beta2, eps,
    weight_decay), as they are now.

    Raises:
        PfcValueError: for another optimizer, or an option that the rows do not follow.
    """
    kind = type(optimizer).__name__
    options = [name for name in ("nesterov", "maximize", "amsgrad") if group.get(name)]
    if group.get("dampening"):
        options.append("dampening")
    if isinstance(optimizer, torch.optim.SGD):
        names: tuple[str, ...] = ("momentum",)
        numbers = [float(group["momentum"])]
    elif is_adam(optimizer):
        names = ("betas", "eps")
        numbers = [float(beta) for beta in group["betas"]] + [float(group["eps"])]
        if not isinstance(optimizer, torch.optim.AdamW) and group["weight_decay"]:
            options.append("weight_decay")
    else:
        raise PfcValueError(
            f"the centres of PartialFC do not know the optimizer {kind}",
            "give module.parameters() to torch.optim.SGD or torch.optim.AdamW, an optimizer of its own if "
            "need be",
        )
    if options:
        raise PfcValueError(
            f"the centres of PartialFC do not follow {' and '.join(options)} of {kind}",
            f"leave it out of their parameter group; they follow lr, {', '.join(names)} and weight_decay",
        )
    return (float(group["lr"]), *numbers, float(group["weight_decay"]))


def scale_of(optimizer: Any) -> float:
    """What a GradScaler asks a fused optimizer to multiply gradients by: 0 to skip the step."""
    found_inf = getattr(optimizer, "found_inf", None)
    if found_inf is not None and float(found_inf) != 0.0:
        return 0.0
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else 1.0 / float(scale)
