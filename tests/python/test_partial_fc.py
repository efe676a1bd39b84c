"""PartialFC against what PartialFC_V2 computed, and against a head in plain PyTorch in the same loop."""

import copy
import json
import os
import pathlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pfc
import pytest
from conftest import ROOT

torch = pytest.importorskip("torch", reason="no torch beside the tests' Python")
import pfc.torch  # noqa: E402
import reference_head  # noqa: E402
from pfc.torch import Margin, PartialFC  # noqa: E402

HERE = ROOT / "tests" / "python"
COSFACE, ARCFACE = (1.0, 0.0, 0.4), (1.0, 0.5, 0.0)


def on_ranks(world, folder, *command):
    """Runs a script on some ranks and returns what the first of them printed."""
    rendezvous = pathlib.Path(folder) / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    ranks = []
    for rank in range(world):
        env = {"RANK": rank, "WORLD_SIZE": world, "RENDEZVOUS": rendezvous, "OMP_NUM_THREADS": 1}
        env = {**os.environ, **{name: str(value) for name, value in env.items()}}
        env["GLOO_SOCKET_IFNAME"] = "lo"
        ranks.append(
            subprocess.Popen(
                [sys.executable, HERE / command[0], *map(str, command[1:])],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=300) for process in ranks]
    for process, (_, errors) in zip(ranks, said):
        assert process.returncode == 0, errors
    return said[0][0]


def cases():
    """The golden cases, of which those that are committed are always there."""
    folder = pathlib.Path(os.environ.get("PFC_GOLDEN", ROOT.parent / "shared" / "golden"))
    committed = sorted((ROOT / "tests" / "golden" / "pfc").glob("*.safetensors"))
    others = sorted((folder / "pfc").glob("*.safetensors"))
    return {path.stem: path for path in [*committed, *others]}


@pytest.mark.parametrize("name", cases())
def test_a_golden_case_gives_the_losses_gradients_and_centres(name, tmp_path):
    path = cases()[name]
    world = int(name[-1])
    on_ranks(world, tmp_path, "head_on_ranks.py", "golden", path)


@pytest.mark.parametrize("what", ["errors", "uneven"])
def test_two_ranks(what, tmp_path):
    on_ranks(2, tmp_path, "head_on_ranks.py", what)


def trained(head, world, folder, rate, margin, *steps):
    margin = ",".join(map(str, margin))
    command = ("train_like_arcface.py", head, rate, margin, folder, *steps)
    return json.loads(on_ranks(world, folder, *command))


def is_near(found, expected, bound):
    return np.abs(np.array(found) / np.array(expected) - 1).max() < bound


@pytest.mark.parametrize(
    ("world", "margin", "rate"),
    [(1, COSFACE, 1.0), (1, ARCFACE, 0.3), (2, COSFACE, 0.3), (2, ARCFACE, 1.0)],
)
def test_the_loop_of_arcface_torch_gives_the_same_losses(world, margin, rate, tmp_path):
    """50 steps with another import."""
    losses = []
    for head in ("reference", "pfc"):
        (tmp_path / head).mkdir()
        losses.append(trained(head, world, tmp_path / head, rate, margin))
    assert len(losses[0]) == 50 and losses[0][-1] < 0.8 * losses[0][0]
    assert is_near(losses[1], losses[0], 1e-4)


@pytest.mark.parametrize(
    ("world", "first", "second"),
    [(1, "reference", "pfc"), (1, "pfc", "reference"), (2, "pfc", "pfc")],
)
def test_either_head_goes_on_from_the_checkpoint_of_the_other(world, first, second, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    expected = trained("reference", world, tmp_path / "whole", 0.3, COSFACE)
    losses = trained(first, world, tmp_path / "parts", 0.3, COSFACE, 20)
    losses += trained(second, world, tmp_path / "parts", 0.3, COSFACE)
    assert is_near(losses, expected, 1e-4)
    for rank in range(world):
        saved = [
            torch.load(tmp_path / folder / f"checkpoint_gpu_{rank}.pt", weights_only=True)
            for folder in ("whole", "parts")
        ]
        states = [s["state_optimizer"]["state"] for s in saved]
        momenta = [state[max(state)]["momentum_buffer"] for state in states]
        weights = [s["state_dict_softmax_fc"]["weight"] for s in saved]
        assert list(saved[1]["state_dict_softmax_fc"]) == ["weight"]
        for found, wanted in ((weights[1], weights[0]), (momenta[1], momenta[0])):
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


class Pair:
    """Our head and the reference's with the same rows, each with an optimizer."""

    def __init__(self, optimizer, rate=1.0, margin=COSFACE, scale=16.0, **options):
        loss = reference_head.CombinedMarginLoss(scale, *margin)
        torch.manual_seed(3)
        self.theirs = reference_head.PartialFC_V2(loss, 8, 60, rate)
        torch.manual_seed(3)
        self.ours = PartialFC(loss, 8, 60, rate, **options)
        self.theirs.sampler = self.ours.sampler if self.ours.sampler else self.ours._head.draw
        self.optimizers = [optimizer(head.parameters()) for head in self.heads()]
        self.random = torch.Generator().manual_seed(4)

    def heads(self):
        return self.theirs, self.ours

    def batch(self):
        embeddings = torch.randn(6, 8, generator=self.random)
        return embeddings, torch.randint(0, 60, (6,), generator=self.random)

    def check(self, bound=1e-5):
        found, wanted = self.ours.weight, self.theirs.weight.detach()
        assert (found - wanted).abs().max() < bound * wanted.abs().max()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)


def test_both_begin_alike_from_a_seed_of_torch():
    Pair(sgd).check(0.0 + 1e-12)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_gradients_of_several_batches_add_up(rate):
    """As with gradient_acc of arcface_torch."""
    pair = Pair(sgd, rate)
    for step in range(6):
        batch = pair.batch()
        for head, optimizer in zip(pair.heads(), pair.optimizers):
            head(*batch).backward()
            if step % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    pair.check()


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_clipping_the_gradient_of_the_head_clips_that_of_its_centres(rate):
    pair = Pair(sgd, rate)
    for _ in range(4):
        batch = pair.batch()
        norms = []
        for head, optimizer in zip(pair.heads(), pair.optimizers):
            head(*batch).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(head.parameters(), 0.5)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        assert is_near(norms[1], norms[0], 1e-4) and norms[0] > 0.5
    pair.check()


def test_a_grad_scaler_scales_and_leaves_out_what_overflowed():
    pair = Pair(sgd, 0.4)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2) for _ in range(2)]
    for step in range(8):
        batch = pair.batch()
        for head, optimizer, scaler in zip(pair.heads(), pair.optimizers, scalers):
            loss = head(*batch)
            # A step of which the gradient is infinite.
            scaler.scale(loss * (1e38 * 10.0 if step == 3 else 1.0)).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert scalers[0].get_scale() == scalers[1].get_scale()
    pair.check()


def test_a_step_without_a_gradient_moves_nothing():
    pair = Pair(sgd, 0.4)
    before = pair.ours.weight.clone()
    pair.optimizers[1].step()
    pair.ours(*pair.batch()).backward()
    pair.optimizers[1].zero_grad()
    pair.optimizers[1].step()
    assert torch.equal(pair.ours.weight, before)
    assert pair.ours.handle.item() == 0


@pytest.mark.parametrize("kind", ["AdamW", "Adam"])
def test_adamw_moves_the_centres_as_torch_does(kind):
    options = {"weight_decay": 0.1} if kind == "AdamW" else {}
    pair = Pair(lambda parameters: getattr(torch.optim, kind)(parameters, lr=0.01, **options))
    for _ in range(5):
        batch = pair.batch()
        for head, optimizer in zip(pair.heads(), pair.optimizers):
            head(*batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    pair.check(1e-4)
    states = [optimizer.state_dict()["state"][0] for optimizer in pair.optimizers]
    assert states[0]["step"] == states[1]["step"] == 5
    for name in ("exp_avg", "exp_avg_sq"):
        wanted = states[0][name]
        assert (states[1][name] - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_changes_of_lr_and_decay_are_followed_at_once():
    pair = Pair(sgd, 0.2)
    for step in range(12):
        batch = pair.batch()
        for head, optimizer in zip(pair.heads(), pair.optimizers):
            group = optimizer.param_groups[0]
            group["lr"] = 0.1 / (1 + step)
            group["weight_decay"], group["momentum"] = (5e-4, 0.9) if step % 3 else (0.1, 0.5)
            head(*batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    pair.check()


def test_sparse_updates_leave_the_other_rows_alone():
    head = PartialFC(Margin.cosface(), 8, 60, 0.2, update="sparse")
    optimizer = sgd(head.parameters())
    before = head.weight.clone()
    drawn = []
    head.sampler = lambda step, classes: drawn.append(head._head.draw(step, classes)) or drawn[-1]
    for _ in range(2):
        head(torch.randn(6, 8), torch.randint(0, 60, (6,))).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = (head.weight != before).any(1)
    assert moved.nonzero().view(-1).tolist() == sorted({int(r) for rows in drawn for r in rows})


def test_a_draw_is_a_function_of_seed_step_and_labels():
    def draw(seed, step):
        head = PartialFC(Margin.cosface(), 8, 1000, 0.1, seed=seed)
        rows = head._head.draw(step, np.array([3, 999]))
        assert len(rows) == 100 and {3, 999} <= set(rows.tolist())
        return rows.tolist()

    assert draw(1, 5) == draw(1, 5) != draw(1, 6) != draw(2, 6)


def test_large_scales_and_many_rows_are_summed_without_overflow():
    for margin, scale in ((COSFACE, 300.0), (ARCFACE, 90.0)):
        pair = Pair(sgd, margin=margin, scale=scale)
        embeddings, labels = pair.batch()
        found = []
        for head in pair.heads():
            leaf = embeddings.clone().requires_grad_()
            loss = head(leaf, labels)
            loss.backward()
            found.append((loss.item(), leaf.grad))
        assert is_near(found[1][0], found[0][0], 1e-5)
        assert (found[1][1] - found[0][1]).abs().max() < 1e-4 * found[0][1].abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_embeddings_of_other_types_have_gradients_of_theirs(dtype):
    pair = Pair(sgd)
    embeddings, labels = pair.batch()
    short = embeddings.to(dtype).requires_grad_()
    same = short.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = pair.ours(short, labels.view(-1, 1))
    assert loss.dtype == torch.float32
    loss.backward()
    pair.theirs(same, labels).backward()
    assert short.grad.dtype == dtype
    assert (short.grad.float() - same.grad).abs().max() < 1e-2 * same.grad.abs().max()


def test_the_loss_is_computed_without_a_gradient_too():
    pair = Pair(sgd)
    embeddings, labels = pair.batch()
    with torch.no_grad():
        assert not pair.ours(embeddings, labels).requires_grad
    pair.ours.handle.requires_grad_(False)
    assert not pair.ours(embeddings, labels).requires_grad
    leaf = embeddings.clone().requires_grad_()
    pair.ours(leaf, labels).backward()
    assert leaf.grad is not None and pair.ours.handle.grad is None


def test_a_head_has_one_parameter_and_its_state_dict_the_weight():
    head = PartialFC(Margin.cosface(), 8, 60, 0.4).train()
    assert [tuple(p.shape) for p in head.parameters()] == [(1, 1)]
    state = head.state_dict()
    assert list(state) == ["weight"] and state["weight"].shape == (60, 8)
    plain = reference_head.PartialFC_V2(None, 8, 60)
    plain.load_state_dict(state)
    plain.weight.data += 1
    head.load_state_dict(plain.state_dict())
    assert torch.equal(head.weight, plain.weight.data)
    with pytest.raises(RuntimeError, match="size mismatch for weight.*rank 0 of 1"):
        head.load_state_dict({"weight": torch.zeros(61, 8)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        head.load_state_dict({"weight": torch.zeros(60, 8), "other": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        head.load_state_dict({})


def test_copies_go_their_own_way():
    pair = Pair(sgd, 0.4)
    batch = pair.batch()
    pair.ours(*batch).backward()
    pair.optimizers[1].step()
    for copied in (copy.deepcopy(pair.ours), pickle.loads(pickle.dumps(pair.ours))):
        assert torch.equal(copied.weight, pair.ours.weight) and copied.step == pair.ours.step
        assert copied(*batch).item() == copy.deepcopy(pair.ours)(*batch).item()
        copied.weight.zero_()
        assert pair.ours.weight.abs().max() > 0


def test_the_losses_of_arcface_torch_are_taken_for_what_they_compute():
    for loss, expected in [
        (reference_head.ArcFace(), Margin.arcface(0.5, straight_through=True)),
        (reference_head.CosFace(s=30.0, m=0.35), Margin.cosface(0.35, 30.0)),
        (
            reference_head.CombinedMarginLoss(64, 1.0, 0.0, 0.4, 0.5),
            Margin.cosface(0.4, interclass_filter=0.5),
        ),
        (
            reference_head.CombinedMarginLoss(64, 1.0, 0.5, 0.0),
            Margin.arcface(0.5, straight_through=True),
        ),
    ]:
        assert PartialFC(loss, 8, 60).margin == expected


class ArcFace(torch.nn.Module):
    """Of the name, and of another formula."""

    s, margin = 64.0, 0.5

    def forward(self, logits, labels):
        return self.s * (logits - self.margin)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (ArcFace(), "computes something else"),
        (torch.nn.CrossEntropyLoss(), "margin_loss is a CrossEntropyLoss"),
        (reference_head.CombinedMarginLoss(64, 1.1, 0.3, 0.0), "m1 = 1.1, m2 = 0.3, m3 = 0"),
        (Margin.cosface(m=3.0), "the margin m is 3"),
        (Margin.arcface(s=0.0), "the scale s is 0"),
    ],
)
def test_a_margin_that_is_not_known_is_an_error(loss, says):
    with pytest.raises(pfc.PfcValueError, match=says):
        PartialFC(loss, 8, 60)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"sample_rate": 1.5}, "sample_rate is 1.5"),
        ({"update": "lazy"}, "update is 'lazy'"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_an_argument_out_of_its_bounds_is_an_error(options, says):
    arguments = {"embedding_size": 8, "num_classes": 60, **options}
    with pytest.raises(pfc.PfcValueError, match=says):
        PartialFC(Margin.cosface(), **arguments)


def moved_by(make, head):
    optimizer = make(head.parameters())
    head(torch.randn(2, 8), torch.tensor([0, 1])).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True), "do not follow nesterov of SGD"),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.1), "dampening"),
        (lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1), "weight_decay of Adam"),
        (lambda p: torch.optim.RMSprop(p, 0.1), "do not know the optimizer RMSprop"),
        (lambda p: torch.optim.AdamW(p, 0.1), "exact for SGD alone"),
    ],
)
def test_an_optimizer_that_cannot_be_followed_is_an_error(make, says):
    head = PartialFC(Margin.cosface(), 8, 60, 0.5)
    before = head.weight.clone()
    with pytest.raises(pfc.PfcValueError, match=says):
        moved_by(make, head)
    assert torch.equal(head.weight, before)


def test_misuse_is_an_error_with_a_way_out():
    head = PartialFC(Margin.cosface(), 8, 60)
    optimizer = sgd(head.parameters())
    embeddings, labels = torch.randn(2, 8, requires_grad=True), torch.tensor([0, 1])
    loss = head(embeddings, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(pfc.PfcValueError, match="has been run before"):
        loss.backward()
    late = head(embeddings, labels)
    optimizer.step()
    with pytest.raises(pfc.PfcValueError, match="moved the centres between"):
        late.backward()
    with pytest.raises(pfc.PfcValueError, match="closure"):
        optimizer.step(lambda: head(embeddings, labels))
    (head(embeddings, labels) * 1e300).backward()
    with pytest.raises(pfc.PfcValueError, match="not finite"):
        optimizer.step()
    head.sampler = lambda step, classes: [1, 0]
    with pytest.raises(pfc.PfcValueError, match="row 0 follows row 1"):
        PartialFC(Margin.cosface(), 8, 60, 0.5, sampler=head.sampler)(embeddings, labels)
    head.sampler = lambda step, classes: [0, 5]
    with pytest.raises(pfc.PfcValueError, match="class 1 is in the batch but not among them"):
        head(embeddings, labels)
    head.sampler = lambda step, classes: [-1, 5]
    with pytest.raises(pfc.PfcValueError, match="from -1 to 5"):
        head(embeddings, labels)


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = Pair(sgd, 0.4)
        pair.ours(*pair.batch()).backward()
        pair.optimizers[1].step()
        pair.optimizers[1].load_state_dict(pair.optimizers[1].state_dict())
