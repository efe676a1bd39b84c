#!/usr/bin/env python3
"""Weights from PyTorch through pfc-train and back: what it writes loads with strict=True.

usage: check_models.py PFC-TRAIN

The network below has the keys of arcface_torch's IResNet, written anew from their list.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from torch import nn

WIDTHS, EMBEDDING = (8, 16, 32, 64), 24


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride == 2:
            shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))


class Network(nn.Module):
    def __init__(self, layers=(1, 1, 1, 1)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, (outputs, n_blocks) in enumerate(zip(WIDTHS, layers), 1):
            blocks = [Block(inputs, outputs, 2)]
            blocks += [Block(outputs, outputs, 1) for _ in range(n_blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * 49, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class EvolveBlock(nn.Module):
    """A block as face.evoLVe has it (`middle` false), and AdaFace, CVLface and TFace after it."""

    def __init__(self, inputs, outputs, stride, middle):
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        layers = [nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs)] if middle else []
        layers += [nn.PReLU(outputs), nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)]
        self.res_layer = nn.Sequential(*layers, nn.BatchNorm2d(outputs))

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class Evolve(nn.Module):
    def __init__(self, layers, middle, affine):
        super().__init__()
        first = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.input_layer = nn.Sequential(first, nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0]))
        inputs, blocks = WIDTHS[0], []
        for outputs, n_blocks in zip(WIDTHS, layers):
            blocks.append(EvolveBlock(inputs, outputs, 2, middle))
            blocks += [EvolveBlock(outputs, outputs, 1, middle) for _ in range(n_blocks - 1)]
            inputs = outputs
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * 49, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING, affine=affine),
        )

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


def trained(network=None):
    """A network whose statistics are not those of a fresh one."""
    torch.manual_seed(1)
    network = network or Network()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def export(program, model, to, out):
    command = [program, "export", model, "--to", to, "--out", out, "--force", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def wrappers(state):
    """State dicts as trainers keep them, by name."""
    under = lambda prefix: {prefix + key: value for key, value in state.items()}  # noqa: E731
    ema = {key: torch.zeros_like(value) for key, value in state.items()}
    namespace = argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/tmp/run"), gpus=[0, 1])
    counts = collections.defaultdict(int, {"a": 1})
    yield "lightning", {
        "epoch": 3,
        "pytorch-lightning_version": "1.0",
        "state_dict": {**under("model."), "head.kernel": torch.rand(EMBEDDING, 99)},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.rand(5)}}, "param_groups": []}],
        "hyper_parameters": namespace,
    }
    yield "magface", {
        "arch": "iresnet",
        "state_dict": {**under("features.module."), "module.fc.weight": torch.rand(EMBEDDING, 99)},
        "best": np.float64(0.5),
        "rng": np.random.default_rng(1).bit_generator.state,
        "counts": counts,
        "seen": {1, 2},
    }
    yield "timm", {"state_dict_ema": ema, "state_dict": state, "args": namespace, "dtype": torch.float32}
    yield "bare head", {**under("backbone."), "head.weight": torch.rand(99, EMBEDDING)}
    yield "net", under("net.")
    yield "array", {"weights": under("encoder."), "mean": np.arange(3.0), "path": pathlib.Path("a")}
    parameters = {key: nn.Parameter(v) if v.is_floating_point() else v for key, v in state.items()}
    yield "parameters", {"model": parameters}
    yield "list", [{"lr": 0.1}, state]


def check_wrapped(program, folder, check):
    """Networks beside and below other things, and by face.evoLVe's names."""
    network = trained()
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    for name, content in wrappers(network.state_dict()):
        torch.save(content, folder / "wrapped.pth")
        export(program, folder / "wrapped.pth", "pth", folder / "back.pth")
        fresh = Network().eval()
        fresh.load_state_dict(torch.load(folder / "back.pth", weights_only=True), strict=True)
        check(f"wrapped as {name}", fresh(images), network(images))
    layers = (2, 3, 1, 2)
    for middle, affine in ((True, False), (True, True), (False, True)):
        evolve = trained(Evolve(layers, middle, affine))
        state = {f"model.{key}": value for key, value in evolve.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 1}, folder / "evolve.ckpt.pth")
        export(program, folder / "evolve.ckpt.pth", "pth", folder / "back.pth")
        fresh = Network(layers).eval()
        fresh.load_state_dict(torch.load(folder / "back.pth", weights_only=True), strict=True)
        check(f"face.evoLVe, {middle=}, {affine=}", fresh(images), evolve(images))


def check_colours(program, folder, check):
    """A network by face.evoLVe's names that was trained with blue first, on photographs."""
    try:
        from PIL import Image
    except ImportError:
        print("skipped: colours, as Pillow is not installed")
        return
    faces = pathlib.Path(os.environ.get("PFC_FACES", "../shared/faces")) / "lfw112"
    files = sorted(faces.glob("*/*.jpg"))[::100][:64]
    if not files:
        print(f"skipped: colours, as {faces} has no photographs")
        return
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    for order, images in (("rgb", rgb), ("bgr", rgb.flip(1))):
        network = trained(Evolve((1, 1, 1, 1), True, False))
        # Filters that look at one colour each, as some of every trained network do.
        weight = network.input_layer[0].weight
        for number in range(len(weight)):
            weight[number] = weight[number].abs() * torch.eye(3)[number % 3].view(3, 1, 1)
        # The statistics of the first layers as training would leave them.
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network(images)
        network.eval()
        torch.save(network.state_dict(), folder / "colours.pth")
        command = [program, "export", folder / "colours.pth", "--to", "pth", "--out", folder / "back.pth", "--force"]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        assert ("turned to take red first" in done.stderr) == (order == "bgr"), done.stderr
        fresh = Network().eval()
        fresh.load_state_dict(torch.load(folder / "back.pth", weights_only=True), strict=True)
        check(f"trained in {order}", fresh(rgb[:3]), network(images[:3]))


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    network = trained()
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        expected = network(images)

    def check(what, found, expected=expected, bound=1e-5):
        error = ((found - expected).abs().max() / expected.abs().max()).item()
        assert error < bound, f"{what}: {error}"
        print(f"{what}: relative error {error:.1e}")

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        folder = pathlib.Path(folder)
        state = network.state_dict()
        wrapped = {f"module.{key}": value for key, value in state.items()}
        nested = {"epoch": 3, "state_dict_backbone": wrapped, "lr": [0.1, 0.01]}
        half = {key: v.half() if v.is_floating_point() else v for key, v in state.items()}
        torch.save(state, folder / "zip.pth")
        torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
        torch.save(wrapped, folder / "wrapped.pt")
        torch.save(nested, folder / "nested.pt")
        torch.save(half, folder / "half.pth")
        for name in ("zip.pth", "legacy.pth", "wrapped.pt", "nested.pt", "half.pth"):
            back = folder / "back.pth"
            export(program, folder / name, "pth", back)
            fresh = Network().eval()
            fresh.load_state_dict(torch.load(back, weights_only=True), strict=True)
            check(f"{name} → .pth", fresh(images), bound=2e-2 if name == "half.pth" else 1e-5)
        check_wrapped(program, folder, check)
        check_colours(program, folder, check)
        export(program, folder / "zip.pth", "torchscript", folder / "trace.pt")
        check("TorchScript", torch.jit.load(folder / "trace.pt")(images))
        report = export(program, folder / "zip.pth", "onnx", folder / "model.onnx")
        print(f"ONNX: largest difference {report['max_difference']}")
        try:
            from safetensors.torch import load_file
        except ImportError:
            print("skipped: safetensors is not installed")
            return
        export(program, folder / "zip.pth", "safetensors", folder / "back.safetensors")
        fresh = Network().eval()
        fresh.load_state_dict(load_file(folder / "back.safetensors"), strict=True)
        check("safetensors", fresh(images))


if __name__ == "__main__":
    main()
