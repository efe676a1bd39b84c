"""Trains a tiny network for 50 steps, in the order of arcface_torch's train_v2.py, and prints its losses as JSON.

    train_like_arcface.py HEAD RATE MARGIN OUT [STEPS]

HEAD is `reference`, which is written in plain PyTorch beside this file, or `pfc`: what is imported as
PartialFC_V2, and nothing else, depends on it. RATE below 1 draws the rows that `drawn_rows` gives. MARGIN is
three numbers with commas between them. Ranks come from RANK, WORLD_SIZE and RENDEZVOUS (a file), as the tests
start them. OUT is the folder of the checkpoints, one of each rank; those that are there are gone on from.
"""

import json
import os
import pathlib
import sys

import numpy as np

if "PFC_TORCH" in os.environ:
    sys.path.append(os.environ["PFC_TORCH"])

import torch  # noqa: E402
from reference_head import CombinedMarginLoss  # noqa: E402
from torch import distributed  # noqa: E402

if sys.argv[1] == "pfc":
    from pfc.torch import PartialFC as PartialFC_V2
else:
    from reference_head import PartialFC_V2

rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
CLASSES, DIM, BATCH, STEPS = 301, 32, 24, 50


class PolynomialLRWarmup(torch.optim.lr_scheduler.LambdaLR):
    """Rises in a line for `warmup_iters` steps, then falls in a line to 0 at `total_iters`."""

    def __init__(self, optimizer, warmup_iters, total_iters):
        def factor(step):
            if step <= warmup_iters:
                return max(step, 1) / warmup_iters
            return max(0.0, (total_iters - step) / (total_iters - warmup_iters))

        super().__init__(optimizer, factor)


def drawn_rows(module):
    """A draw of all classes of the batch and others, a function of step and rank."""

    def rows(step, classes):
        random = np.random.default_rng((7, step, rank))
        own = np.asarray(classes) - module.class_start
        own = own[(own >= 0) & (own < module.num_local)]
        n_others = int(module.sample_rate * module.num_local) - len(own)
        others = np.setdiff1d(np.arange(module.num_local), own)
        return np.union1d(own, random.choice(others, max(0, n_others), replace=False))

    return rows


def batch_of(step):
    """Images of made-up people and their labels, this rank's part."""
    random = np.random.default_rng((step, rank))
    people = np.random.default_rng(3).normal(0, 1, (CLASSES, 3, 8, 8))
    labels = random.integers(0, CLASSES, BATCH)
    images = people[labels] + random.normal(0, 0.4, (BATCH, 3, 8, 8))
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


def network():
    """A small network of the shape of a backbone."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.PReLU(8),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 64, DIM),
        torch.nn.BatchNorm1d(DIM),
    )


def main():
    _, _, rate, margin, out = sys.argv[:5]
    steps = int(sys.argv[5]) if len(sys.argv) > 5 else STEPS
    if world_size > 1:
        distributed.init_process_group(
            "gloo", init_method="file://" + os.environ["RENDEZVOUS"], rank=rank, world_size=world_size
        )
    torch.manual_seed(5)
    backbone = network()
    if world_size > 1:
        backbone = torch.nn.parallel.DistributedDataParallel(backbone, broadcast_buffers=False)
    backbone.train()
    margin_loss = CombinedMarginLoss(64, *(float(m) for m in margin.split(",")))
    module_partial_fc = PartialFC_V2(margin_loss, DIM, CLASSES, float(rate), False)
    module_partial_fc.train()
    if float(rate) < 1:
        module_partial_fc.sampler = drawn_rows(module_partial_fc)
    opt = torch.optim.SGD(
        params=[{"params": backbone.parameters()}, {"params": module_partial_fc.parameters()}],
        # Small: at 0.1 the rounding of one step grows a thousandfold in 50.
        lr=0.005,
        momentum=0.9,
        weight_decay=5e-4,
    )
    lr_scheduler = PolynomialLRWarmup(opt, 10, STEPS)
    checkpoint, start = pathlib.Path(out) / f"checkpoint_gpu_{rank}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start = saved["global_step"]
        backbone.load_state_dict(saved["state_dict_backbone"])
        module_partial_fc.load_state_dict(saved["state_dict_softmax_fc"])
        opt.load_state_dict(saved["state_optimizer"])
        lr_scheduler.load_state_dict(saved["state_lr_scheduler"])
        if module_partial_fc.step == 0:
            # Only the state dict of pfc carries it.
            module_partial_fc.step = start
    losses = []
    for global_step in range(start, steps):
        images, local_labels = batch_of(global_step)
        local_embeddings = backbone(images)
        loss = module_partial_fc(local_embeddings, local_labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 5)
        opt.step()
        opt.zero_grad()
        lr_scheduler.step()
        losses.append(loss.item())
    checkpoint.parent.mkdir(exist_ok=True)
    torch.save(
        {
            "global_step": steps,
            "state_dict_backbone": backbone.state_dict(),
            "state_dict_softmax_fc": module_partial_fc.state_dict(),
            "state_optimizer": opt.state_dict(),
            "state_lr_scheduler": lr_scheduler.state_dict(),
        },
        checkpoint,
    )
    print(json.dumps(losses))
    if world_size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
