"""A Partial FC head in plain PyTorch, written from the published semantics of arcface_torch's PartialFC_V2.

The weight is a dense parameter, which the caller's optimizer moves. It works on one rank and on several, and
is what `pfc.torch.PartialFC` is compared with; `sampler` chooses the rows as it does there.
"""

# G = global batch, B = this rank's part of it, D = embedding, S = rows drawn on this rank.

import numpy as np
import torch
from torch import distributed


class CombinedMarginLoss(torch.nn.Module):
    """Attributes and values of arcface_torch's loss of this name: ArcFace if m1 is 1 and m3 is 0, else CosFace."""

    def __init__(self, s, m1, m2, m3, interclass_filtering_threshold=0):
        super().__init__()
        self.s, self.m1, self.m2, self.m3 = s, m1, m2, m3
        self.interclass_filtering_threshold = interclass_filtering_threshold

    def forward(self, logits, labels):
        own = torch.nn.functional.one_hot(labels.view(-1).clamp_min(0), logits.shape[1])
        own = own.bool() & (labels.view(-1, 1) >= 0)
        if self.interclass_filtering_threshold > 0:
            is_noise = (logits > self.interclass_filtering_threshold) & ~own
            logits = logits.masked_fill(is_noise, 0.0)
        if self.m1 == 1.0 and self.m3 == 0.0:
            # The value is cos(theta + m), the derivative 1.
            with torch.no_grad():
                change = torch.cos(torch.arccos(logits) + self.m2) - logits
            return self.s * (logits + torch.where(own, change, 0.0))
        return self.s * (logits - self.m3 * own)


class ArcFace(torch.nn.Module):
    """Attributes and values of arcface_torch's loss of this name."""

    def __init__(self, s=64.0, margin=0.5):
        super().__init__()
        self.s, self.margin = s, margin

    def forward(self, logits, labels):
        return CombinedMarginLoss(self.s, 1.0, self.margin, 0.0)(logits, labels)


class CosFace(torch.nn.Module):
    """Attributes and values of arcface_torch's loss of this name."""

    def __init__(self, s=64.0, m=0.40):
        super().__init__()
        self.s, self.m = s, m

    def forward(self, logits, labels):
        return CombinedMarginLoss(self.s, 1.0, 0.0, self.m)(logits, labels)


class PartialFC_V2(torch.nn.Module):
    """The head; see the module."""

    def __init__(self, margin_loss, embedding_size, num_classes, sample_rate=1.0, fp16=False):
        super().__init__()
        is_one = not distributed.is_initialized()
        self.rank = 0 if is_one else distributed.get_rank()
        self.world_size = 1 if is_one else distributed.get_world_size()
        share, longer = divmod(num_classes, self.world_size)
        self.num_local = share + (self.rank < longer)
        self.class_start = share * self.rank + min(self.rank, longer)
        self.margin_softmax = margin_loss
        self.sample_rate = sample_rate
        self.sampler = None
        self.step = 0
        weight = torch.normal(0, 0.01, (self.num_local, embedding_size))
        self.weight = torch.nn.Parameter(weight)

    def rows(self, labels_g):
        """The rows that take part, ascending."""
        if self.sample_rate >= 1:
            return torch.arange(self.num_local)
        if self.sampler is not None:
            return torch.as_tensor(np.asarray(self.sampler(self.step, np.unique(labels_g))).astype(int))
        own = labels_g - self.class_start
        own = own[(own >= 0) & (own < self.num_local)].unique()
        scores = torch.rand(self.num_local)
        scores[own] = 2.0
        n_rows = max(len(own), int(self.sample_rate * self.num_local))
        return scores.topk(n_rows)[1].sort()[0]

    def forward(self, local_embeddings, local_labels):
        embeddings_gd = Gather.apply(local_embeddings, self.rank, self.world_size)
        labels_g = gathered(local_labels.view(-1), self.world_size)
        rows = self.rows(labels_g)
        self.step += 1
        weight_sd = self.weight[rows] if self.sample_rate < 1 else self.weight
        normalize = torch.nn.functional.normalize
        cosines_gs = (normalize(embeddings_gd) @ normalize(weight_sd).T).clamp(-1, 1)
        local_g = labels_g - self.class_start
        is_here_g = (local_g >= 0) & (local_g < self.num_local)
        places_g = torch.searchsorted(rows, local_g.clamp(0, max(self.num_local - 1, 0)))
        targets_g = torch.where(is_here_g, places_g, -1)
        logits_gs = self.margin_softmax(cosines_gs, targets_g.view(-1, 1))
        return CrossEntropy.apply(logits_gs, targets_g)


def gathered(values, world_size):
    """Every rank's values, one after the other."""
    if world_size == 1:
        return values.clone()
    of_ranks = [torch.empty_like(values) for _ in range(world_size)]
    distributed.all_gather(of_ranks, values.contiguous())
    return torch.cat(of_ranks)


def reduced(values, operation):
    """Values combined over the ranks."""
    if distributed.is_initialized():
        distributed.all_reduce(values, getattr(distributed.ReduceOp, operation))
    return values


class Gather(torch.autograd.Function):
    """Every rank's rows; the gradient is multiplied by the number of ranks, over which DDP averages."""

    @staticmethod
    def forward(ctx, rows_bd, rank, world_size):
        ctx.own = slice(rank * len(rows_bd), (rank + 1) * len(rows_bd))
        ctx.world_size = world_size
        return gathered(rows_bd, world_size)

    @staticmethod
    def backward(ctx, gradient_gd):
        return reduced(gradient_gd.clone(), "SUM")[ctx.own] * ctx.world_size, None, None


class CrossEntropy(torch.autograd.Function):
    """Mean cross entropy of logits of which each rank has some columns; a target of -1 is of another rank."""

    @staticmethod
    def forward(ctx, logits_gs, targets_g):
        most_g = logits_gs.detach().amax(1)
        most_g = reduced(most_g, "MAX")
        exp_gs = (logits_gs - most_g.view(-1, 1)).exp()
        p_gs = exp_gs / reduced(exp_gs.sum(1), "SUM").view(-1, 1)
        own = torch.where(targets_g >= 0)[0]
        p_own_g = torch.zeros(len(p_gs))
        p_own_g[own] = p_gs[own, targets_g[own]]
        loss = -reduced(p_own_g, "SUM").clamp_min(1e-30).log().mean()
        ctx.save_for_backward(p_gs, own, targets_g)
        return loss

    @staticmethod
    def backward(ctx, by_loss):
        p_gs, own, targets_g = ctx.saved_tensors
        gradient_gs = p_gs.clone()
        gradient_gs[own, targets_g[own]] -= 1.0
        return gradient_gs * (by_loss / len(p_gs)), None
