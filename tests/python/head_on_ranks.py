"""One rank of a test of `pfc.torch.PartialFC`; `test_partial_fc.py` starts them.

    head_on_ranks.py golden CASE | errors | uneven

Ranks come from RANK, WORLD_SIZE and RENDEZVOUS (a file). A rank that finds a fault ends with an error.
"""

import json
import os
import pathlib
import struct
import sys

import numpy as np

if "PFC_TORCH" in os.environ:
    sys.path.append(os.environ["PFC_TORCH"])

import pfc  # noqa: E402
import pfc.torch  # noqa: E402
import torch  # noqa: E402
from reference_head import CombinedMarginLoss  # noqa: E402
from torch import distributed  # noqa: E402

rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

#: Bounds of the collection of known answers: the loss relative, tensors by their largest number.
LOSS, TENSOR = 1e-5, 1e-4


class Case:
    """Steps that PartialFC_V2 took; the README of the collection says what is in a file."""

    def __init__(self, path):
        content = pathlib.Path(path).read_bytes()
        (n,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + n])
        facts = header.pop("__metadata__")
        self.facts = {name: json.loads(text) for name, text in facts.items() if name in FACTS}
        types = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "F64": "<f8"}
        self.tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            data = np.frombuffer(content[8 + n + begin : 8 + n + end], types[entry["dtype"]])
            self.tensors[name] = torch.from_numpy(data.reshape(entry["shape"]).copy())

    def of_step(self, step, name):
        return self.tensors[f"rank{rank}.step{step}.{name}"]


FACTS = ("world", "classes", "dim", "sample_rate", "m1", "m2", "m3", "scale", "interclass_filter", "lr")
FACTS += ("momentum", "weight_decay", "steps")


def check(found, expected, what, bound=TENSOR):
    error, most = float((found - expected).abs().max()), float(expected.abs().max())
    assert found.shape == expected.shape and error <= bound * most, f"{what}: {error:e} of {most:e}"


def golden(path):
    """Every step of a case, looked at after each."""
    case = Case(path)
    facts = case.facts
    margin = CombinedMarginLoss(
        facts["scale"], facts["m1"], facts["m2"], facts["m3"], facts["interclass_filter"]
    )
    head = pfc.torch.PartialFC(margin, facts["dim"], facts["classes"], facts["sample_rate"], False)
    if facts["sample_rate"] < 1:
        head.sampler = lambda step, classes: case.of_step(step, "sampled_rows")
    head.load_state_dict({"weight": case.tensors[f"rank{rank}.weight.init"]})
    opt = torch.optim.SGD(
        [{"params": head.parameters()}],
        lr=1.0,
        momentum=facts["momentum"],
        weight_decay=facts["weight_decay"],
    )
    for step in range(facts["steps"]):
        opt.param_groups[0]["lr"] = lr_of(facts, step)
        embeddings = case.of_step(step, "embeddings").requires_grad_()
        loss = head(embeddings, case.of_step(step, "labels"))
        check(loss.detach().view(1), case.of_step(step, "loss").view(-1), f"loss {step}", LOSS)
        loss.backward()
        expected = case.of_step(step, "grad_embeddings") * world_size
        check(embeddings.grad, expected, f"gradient {step}")
        opt.step()
        opt.zero_grad()
        # Looking applies the updates that were put off, so that every other step goes without.
        if step % 2 or step + 1 == facts["steps"]:
            momentum = opt.state_dict()["state"][0]["momentum_buffer"]
            check(head.weight, case.of_step(step, "weight.after"), f"weight {step}")
            check(momentum, case.of_step(step, "momentum.after"), f"momentum {step}")


def lr_of(facts, step):
    """A number, or `NUMBER*(1-step/steps)`."""
    if not isinstance(facts["lr"], str):
        return facts["lr"]
    first, falls = facts["lr"].split("*", 1)
    assert falls == "(1-step/steps)"
    return float(first) * (1 - step / facts["steps"])


def message_of(call):
    """What the error of a call says; there has to be one."""
    try:
        call()
    except pfc.PfcValueError as error:
        assert error.hint
        return error.message
    raise AssertionError("no error")


def errors():
    """What is wrong on one rank is an error on all, and the next step works."""
    head = pfc.torch.PartialFC(pfc.torch.Margin.cosface(), 8, 100)
    good, labels = torch.randn(4, 8), torch.tensor([1, 2, 99, 50])
    on_1 = rank == 1
    bad = torch.tensor([1, 2, 100, 50]) if on_1 else labels
    assert message_of(lambda: head(good, bad)) == (
        "step 0: row 2 of rank 1 has label 100, but the head has 100 classes"
    )
    bad = torch.tensor([-1, 2, 3, 50]) if on_1 else labels
    assert "row 0 of rank 1 has label -1" in message_of(lambda: head(good, bad))
    bad = good.clone()
    bad[3, 5] = float("nan") if on_1 else 0.0
    assert message_of(lambda: head(bad, labels)) == (
        "step 0: the embedding of row 3 of rank 1 is not finite"
    )
    bad = torch.randn(4, 9) if on_1 else good
    said = message_of(lambda: head(bad, labels))
    assert ("shape (4, 9)" if on_1 else "rank 1 cannot take part") in said, said
    assert torch.isfinite(head(good, labels))
    head.step += rank
    assert message_of(lambda: head(good, labels)) == "rank 1 is at step 2, rank 0 at step 1"
    other = pfc.torch.PartialFC(pfc.torch.Margin.cosface(0.4 + 0.1 * rank), 8, 100)
    assert message_of(lambda: other(good, labels)).startswith("rank 1 has a head of other arguments")


def uneven():
    """Batches of different sizes give the loss and the gradient of one batch."""
    torch.manual_seed(1)
    whole, labels = torch.randn(7, 8), torch.randint(0, 100, (7,))
    weight = torch.randn(100, 8)
    head = pfc.torch.PartialFC(pfc.torch.Margin.cosface(s=20.0), 8, 100)
    head.load_state_dict({"weight": weight[50 * rank : 50 * (rank + 1)]})
    own = slice(0, 5) if rank == 0 else slice(5, 7)
    embeddings = whole[own].clone().requires_grad_()
    loss = head(embeddings, labels[own])
    loss.backward()
    whole.requires_grad_()
    unit = torch.nn.functional.normalize
    cosines = unit(whole) @ unit(weight).T - 0.4 * torch.nn.functional.one_hot(labels, 100)
    expected = torch.nn.functional.cross_entropy(20.0 * cosines, labels)
    expected.backward()
    check(loss.detach().view(1), expected.detach().view(1), "loss", LOSS)
    check(embeddings.grad, world_size * whole.grad[own], "gradient")
    # Nothing of one rank's is a batch too.
    none = slice(0, 0) if rank == 0 else slice(0, 7)
    loss = head(whole.detach()[none], labels[none])
    check(loss.detach().view(1), expected.detach().view(1), "loss", LOSS)


def main():
    if world_size > 1:
        distributed.init_process_group(
            "gloo", init_method="file://" + os.environ["RENDEZVOUS"], rank=rank, world_size=world_size
        )
    torch.set_num_threads(1)
    {"golden": golden, "errors": errors, "uneven": uneven}[sys.argv[1]](*sys.argv[2:])
    if world_size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
