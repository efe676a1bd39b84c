#!/usr/bin/env python3
"""Weights from PyTorch through pfc-train and back: what it writes loads with strict=True.

usage: check_models.py PFC-TRAIN

The network below has the keys of arcface_torch's IResNet, written anew from their list.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from torch import nn

WIDTHS, EMBEDDING = (8, 16, 32, 64), 24


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, outputs in enumerate(WIDTHS, 1):
            setattr(self, f"layer{stage}", nn.Sequential(Block(inputs, outputs)))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * 49, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def trained():
    """A network whose statistics are not those of a fresh one."""
    torch.manual_seed(1)
    network = Network()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def export(program, model, to, out):
    command = [program, "export", model, "--to", to, "--out", out, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    network = trained()
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        expected = network(images)

    def check(what, found, bound=1e-5):
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
            check(f"{name} → .pth", fresh(images), 2e-2 if name == "half.pth" else 1e-5)
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
