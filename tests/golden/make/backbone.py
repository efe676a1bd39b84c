#!/usr/bin/env python3
"""Runs a small IResNet in PyTorch on inputs and weights that follow a formula, and writes its files.

usage: backbone.py FOLDER

The network has the keys of arcface_torch's IResNet, written anew from their list. Element i of tensor
KEY: h is the FNV-1a hash (64 bits) of the text "SEED/KEY"; z is h + (i + 1) times 0x9E3779B97F4A7C15,
scrambled as SplitMix64 does; the upper 24 bits of z, as a fraction, lie between `lo` and `hi`.
"""

import hashlib
import io
import json
import pathlib
import re
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import nn

WIDTHS, EMBEDDING, BATCH = (8, 16, 16, 8), 16, 4
# Of the weights. With seed 0 an activation lies so near to the kink of a PReLU that a rounding error of the
# input changes gradients by 5e-4, in PyTorch as well; with this one by 1e-5 at most.
SEED = 3
NET = "iresnet1111_w8_e16"
ABOUT = f"layers 1,1,1,1, widths {','.join(map(str, WIDTHS))}, embedding {EMBEDDING}"


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
        self.features.weight.requires_grad_(False)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


def formula(key, shape, low, high, seed=0):
    h = 0xCBF29CE484222325
    for byte in f"{seed}/{key}".encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return torch.from_numpy((low + (high - low) * u).astype(np.float32).reshape(shape))


def bounds(key, shape):
    """Between which numbers the formula draws; none for a counter."""
    name = key.rsplit(".", 1)[-1]
    if name == "num_batches_tracked":
        return None, None
    if key == "features.weight":
        return 1.0, 1.0
    if len(shape) > 1:
        bound = (3.0 / float(np.prod(shape[1:]))) ** 0.5
        return -bound, bound
    if "prelu" in key:
        return 0.1, 0.4
    return {"weight": (0.5, 1.5), "bias": (-0.1, 0.1), "running_mean": (-0.2, 0.2),
            "running_var": (0.5, 1.5)}[name]


def weights():
    rows, state = [], {}
    for key, tensor in Network().state_dict().items():
        shape = list(tensor.shape)
        low, high = bounds(key, shape)
        state[key] = torch.zeros((), dtype=torch.int64) if low is None else formula(key, shape, low, high, SEED)
        dtype = str(state[key].dtype).removeprefix("torch.")
        sha = hashlib.sha256(state[key].numpy().tobytes()).hexdigest()
        rows.append([key, shape, dtype, low, high, sha])
    return rows, state


def answers(state, data, dtype):
    """Evaluation, and one training step with the loss Σ output · fixed."""
    network = Network().to(dtype)
    network.load_state_dict(state)
    fixed = formula("fixed", [BATCH, EMBEDDING], -1, 1).to(dtype)
    data = data.to(dtype).detach().clone().requires_grad_()
    with torch.no_grad():
        found = {"eval.output": network.eval()(data)}
    output = network.train()(data)
    loss = (output * fixed).sum()
    loss.backward()
    found |= {"fixed": fixed, "train.output": output, "train.loss": loss.view(1),
              "train.grad.data.image0": data.grad[0]}
    parameters = dict(network.named_parameters())
    for key in ["conv1.weight", "prelu.weight", "layer1.0.downsample.0.weight", "layer2.0.conv1.weight",
                "layer3.0.bn3.weight", "fc.weight", "features.bias"]:
        found[f"train.grad.{key}"] = parameters[key].grad
    after = network.state_dict()
    for layer in ["bn1", "features"]:
        for name in ["running_mean", "running_var", "num_batches_tracked"]:
            found[f"train.after.{layer}.{name}"] = after[f"{layer}.{name}"]
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def relative_error(found, exact):
    return float((found.double() - exact).abs().max() / exact.abs().max())


def write_golden(path, state, data):
    found, exact = (answers(state, data, dtype) for dtype in (torch.float32, torch.float64))
    errors = {name: relative_error(tensor, exact[name]) for name, tensor in found.items()
              if tensor.is_floating_point() and name != "fixed"}
    metadata = {"net": NET, "about": ABOUT, "seed": SEED, "gradient_rows": [],
                "loss": "(train.output * fixed).sum()", "relative_error_against_float64": errors,
                "worst_relative_error_against_float64": max(errors.values()),
                "made_with": f"PyTorch {torch.__version__}"}
    save_file({k: v.contiguous() for k, v in found.items()}, path,
              {k: json.dumps(v) for k, v in metadata.items()})


def write_script(path, network, data):
    """A traced program without the records of where it was traced, which name files of that machine."""
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, data[:1]), out)
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(name), old.read(name))
    assert torch.equal(torch.jit.load(path)(data), network(data))


def write_onnx(path, network, data):
    """As arcface_torch exports: opset 11, the batch of the input open, that of the output still 1."""
    out = io.BytesIO()
    torch.onnx.export(network, data[:1], out, input_names=["data"], opset_version=11, dynamo=False)
    model = onnx.load_from_string(out.getvalue())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "None"
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"data": data.numpy()})
    metadata = {"made_by": f"onnxruntime {onnxruntime.__version__}, CPU, batch {BATCH}"}
    save_file({"output": torch.from_numpy(output)}, path.with_suffix(".onnx.golden.safetensors"),
              {k: json.dumps(v) for k, v in metadata.items()})


def main(folder):
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    data = formula("data", [BATCH, 3, 112, 112], -1, 1)
    rows, state = weights()
    columns = ["key", "shape", "dtype", "lo", "hi", "sha256 of little-endian bytes"]
    text = json.dumps({"net": NET, "about": ABOUT, "seed": SEED, "columns": columns, "tensors": rows})
    (folder / f"{NET}.tensors.json").write_text(re.sub(r"\], \[\"", "],\n[\"", text) + "\n")
    write_golden(folder / f"{NET}.golden.safetensors", state, data)
    torch.save(state, folder / f"{NET}.pth")
    torch.save(state, folder / f"{NET}.legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / f"{NET}.safetensors")
    network = Network()
    network.load_state_dict(state)
    for parameter in network.eval().parameters():
        parameter.requires_grad_(False)
    write_script(folder / f"{NET}.torchscript.pt", network, data)
    write_onnx(folder / f"{NET}.onnx", network, data)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
