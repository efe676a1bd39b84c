#!/usr/bin/env python3
"""PyTorch resumes from what `pfc-train export --to arcface-torch` writes, as train_v2.py does.

usage: check_resume.py PFC-TRAIN

A run of two epochs is handed over after the first. Its optimizer and schedule are built as
arcface_torch's trainer builds them, with other values, and have to take everything from the file.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

import check_models

CLASSES, EMBEDDING, RANKS = 50, 24, 3
CONFIG = """
data.synthetic = { identities = 50, images = 96 }
data.loader_threads = 1
[model]
network = "r10_w8"
embedding = 24
precision = "f32"
[head]
sample_rate = 0.5
lr_factor = 0.5
weight_decay = 1e-4
[optim]
lr = 0.02
warmup_epochs = 0.5
[train]
batch_size = 16
epochs = 2
threads = 1
[checkpoint]
every_steps = 6
keep = 9
[log]
every_steps = 1
"""
ADAMW = ["optim.optimizer=adamw", "optim.schedule=poly2", "head.update=sparse",
         "head.optimizer={ name = \"adamw\", beta1 = 0.8 }", "optim.weight_decay=0.1"]


class Centres(nn.Module):
    """The one parameter of PartialFC_V2."""

    def __init__(self, rank):
        super().__init__()
        n_rows = CLASSES // RANKS + (rank < CLASSES % RANKS)
        self.weight = nn.Parameter(torch.zeros(n_rows, EMBEDDING))


class Polynomial(LRScheduler):
    """A line up to the base over `warmup_iters`, then down to 0 at `total_iters`, to a power."""

    def __init__(self, optimizer, warmup_iters, total_iters, power=1.0):
        self.warmup_iters, self.total_iters, self.power = warmup_iters, total_iters, power
        super().__init__(optimizer)

    def get_lr(self):
        t, begin, end = self.last_epoch, self.warmup_iters, self.total_iters
        if t == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        if t <= begin:
            return [base * t / begin for base in self.base_lrs]
        left = lambda at: (1 - (at - begin) / (end - begin)) ** self.power
        return [group["lr"] * left(t) / left(t - 1) for group in self.optimizer.param_groups]


def near(found, expected, what, bound=1e-12):
    assert abs(found - expected) <= bound * abs(expected), f"{what}: {found}, not {expected}"


def same(found, expected, what):
    assert torch.equal(found, expected), f"{what} differs"


def check(program, folder, name, sets):
    # Without safetensors the files could not be compared with the run's own.
    from safetensors.torch import load_file

    config, run = folder / "run.toml", folder / name
    config.write_text(CONFIG)
    command = [program, "run", config, "--out", run, "-q", *(f"--set={text}" for text in sets)]
    subprocess.run(command, check=True)
    saved, out = run / "checkpoints" / "step-00000006.ckpt", folder / f"{name}-torch"
    command = [program, "export", saved, "--to", "arcface-torch", "--ranks", str(RANKS), "--out", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = (json.loads(line) for line in (run / "metrics.jsonl").open())
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    backbone = load_file(saved / "backbone.safetensors")
    moments = load_file(saved / "optimizer.safetensors")
    rows = load_file(saved / "centres.safetensors")

    first = 0
    for rank in range(RANKS):
        state = torch.load(out / f"checkpoint_gpu_{rank}.pt", weights_only=True)
        assert (state["epoch"], state["global_step"]) == (1, 6), state["epoch"]
        network, centres = check_models.Network(), Centres(rank)
        network.features.weight.requires_grad = False
        groups = [{"params": network.parameters()}, {"params": centres.parameters()}]
        if name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=7.0, momentum=0.1, weight_decay=3.0)
        else:
            optimizer = torch.optim.AdamW(groups, lr=7.0, weight_decay=3.0)
        scheduler = Polynomial(optimizer, 1, 2)
        network.load_state_dict(state["state_dict_backbone"], strict=True)
        centres.load_state_dict(state["state_dict_softmax_fc"], strict=True)
        optimizer.load_state_dict(state["state_optimizer"])
        scheduler.load_state_dict(state["state_lr_scheduler"])

        for key, tensor in network.state_dict().items():
            same(tensor, backbone[key], key)
        n_rows = centres.weight.shape[0]
        own = (rows["centres.class"] >= first) & (rows["centres.class"] < first + n_rows)
        touched = rows["centres.class"][own] - first
        same(centres.weight[touched], rows["centres.weight"][own], "centres")
        slots = {"sgd": {"momentum_buffer": ""}, "adamw": {"exp_avg": ".exp_avg", "exp_avg_sq": ".exp_avg_sq"}}
        for key, parameter in network.named_parameters():
            kept = optimizer.state.get(parameter, {})
            assert bool(kept) == parameter.requires_grad, key
            for slot, suffix in slots[name].items() if kept else ():
                same(kept[slot], moments[key + suffix], f"{slot} of {key}")
        kept = optimizer.state[centres.weight]
        if name == "sgd":
            same(kept["momentum_buffer"][touched], rows["centres.momentum"][own], "momentum")
        else:
            both = torch.cat([kept["exp_avg"], kept["exp_avg_sq"]], 1)[touched]
            same(both, rows["centres.moments"][own], "moments of centres")
            counts = {float(kept["step"]) for kept in optimizer.state.values()}
            assert counts == {6.0}, counts
            assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.999), (0.8, 0.999)]
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        assert decays == [5e-4 if name == "sgd" else 0.1, 1e-4], decays

        for step in range(7, 13):
            of_network, of_centres = (group["lr"] for group in optimizer.param_groups)
            near(of_network, rates[step], f"rate of step {step}")
            near(of_centres, rates[step] * 0.5, f"rate of the centres in step {step}")
            weight = centres.weight.detach().clone()
            for parameter in optimizer.param_groups[0]["params"] + [centres.weight]:
                parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
            if name == "sgd":
                velocity = kept["momentum_buffer"].clone() * 0.9 + 1 + 1e-4 * weight
                expected = weight - of_centres * velocity
            optimizer.step()
            if name == "sgd":
                error = (centres.weight - expected).abs().max().item()
                assert error < 1e-6, f"step {step} of the centres: {error}"
            scheduler.step()
        first += n_rows
    assert first == CLASSES
    print(f"arcface_torch's checkpoints of {RANKS} ranks, {name}: resumed")


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    try:
        import safetensors  # noqa: F401
    except ImportError:
        print("skipped: safetensors is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        check(program, pathlib.Path(folder), "sgd", [])
        check(program, pathlib.Path(folder), "adamw", ADAMW)


if __name__ == "__main__":
    main()
