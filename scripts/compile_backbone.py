"""Compiles the training passes of a backbone for `[model] compiled` (see docs/gpu.md).

Usage: python compile_backbone.py NETWORK --batch N --out DIR [--embedding E] [--precision f32|bf16|f16] [--device D]

The forward and the backward pass become an AOTInductor package each. Weights are inputs of both, so that the
packages serve any run of this network, batch, precision and device, and `pfc-train` runs them without Python.
Beside them stands `manifest.json`, which says what they were made for and the SHA-256 of each.
"""

import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import torch
import torch._inductor.config
import torch.nn.functional as F
from functorch.compile import aot_function, make_boxed_func, min_cut_rematerialization_partition
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch._inductor.decomposition import select_decomp_table

# Programs that load a package have libtorch already, and not always under the name that it would ask for.
torch._inductor.config.aot_inductor.link_libtorch = False
# So does this one, whose own libtorch others may not see otherwise.
LIBRARIES = pathlib.Path(torch.__file__).parent / "lib"
for name in ("libtorch_cpu.so", "libtorch_cuda.so"):
    if (LIBRARIES / name).exists() and (name == "libtorch_cpu.so" or torch.cuda.is_available()):
        ctypes.CDLL(str(LIBRARIES / name), mode=ctypes.RTLD_GLOBAL)

FORMAT = 1
SIDE = 112
MOMENTUM, EPS = 0.1, 1e-5
WIDTHS = (64, 128, 256, 512)
# As in crates/model/src/spec.rs. Transformers draw masks at random, for which a package has no place.
NETWORKS = {
    "r10_w8": ("iresnet", (1, 1, 1, 1), (8, 16, 32, 64)),
    "r18": ("iresnet", (2, 2, 2, 2), WIDTHS),
    "r34": ("iresnet", (3, 4, 6, 3), WIDTHS),
    "r50": ("iresnet", (3, 4, 14, 3), WIDTHS),
    "r100": ("iresnet", (3, 13, 30, 3), WIDTHS),
    "r200": ("iresnet", (6, 26, 60, 6), WIDTHS),
    "mbf": ("mobilefacenet", (1, 4, 6, 2), 2),
    "mbf_large": ("mobilefacenet", (2, 8, 12, 4), 4),
}
KINDS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


# ---- the network, as a function of its tensors -----------------------------------------------------
class Shapes:
    """Collects the tensors of a network in state-dict order instead of computing."""

    def __init__(self):
        self.entries = []

    def add(self, name, shape, learns=True):
        self.entries.append((name, tuple(shape), learns))

    def conv(self, x, name, c_out, kernel, stride=1, padding=0, groups=1, full=False):
        c_in, height, width = x
        self.add(f"{name}.weight", (c_out, c_in // groups, kernel, kernel))
        side = lambda n: (n + 2 * padding - kernel) // stride + 1  # noqa: E731
        return c_out, side(height), side(width)

    def norm(self, x, name, learns=True):
        self.add(f"{name}.weight", (x[0],), learns)
        self.add(f"{name}.bias", (x[0],))
        self.add(f"{name}.running_mean", (x[0],), False)
        self.add(f"{name}.running_var", (x[0],), False)
        return x

    def prelu(self, x, name):
        self.add(f"{name}.weight", (x[0],))
        return x

    def linear(self, x, name, outputs, bias):
        self.add(f"{name}.weight", (outputs, x[0]))
        if bias:
            self.add(f"{name}.bias", (outputs,))
        return (outputs,)

    def flatten(self, x):
        return (x[0] * x[1] * x[2],)

    def sum(self, x, y):
        assert x == y, (x, y)
        return x

    def full(self, x):
        return x


class Layers:
    """Computes, as crates/model does in training: large layers in `kind`, normalisation in f32."""

    def __init__(self, tensors, kind):
        self.tensors, self.kind, self.statistics = tensors, kind, []
        # Of the last layers, whatever the precision; f64 where a pass is an exact one.
        self.wide = torch.float64 if kind == torch.float64 else torch.float32

    def conv(self, x, name, c_out, kernel, stride=1, padding=0, groups=1, full=False):
        kind = self.wide if full else self.kind
        if x.device.type == "cpu" and kernel == 1 and stride > 1 and x.shape[1] < 16:
            # oneDNN's gradient at such a weight writes past its end.
            x, stride = x[:, :, ::stride, ::stride], 1
        weight = self.tensors[f"{name}.weight"].to(kind)
        return F.conv2d(x.to(kind), weight, None, stride, padding, 1, groups)

    def norm(self, x, name, learns=True):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        # Moved copies, which the pass gives back: a package changes none of its inputs.
        mean = self.tensors[f"{name}.running_mean"].clone()
        variance = self.tensors[f"{name}.running_var"].clone()
        y = F.batch_norm(x, mean, variance, weight, bias, True, MOMENTUM, EPS)
        self.statistics += [mean, variance]
        return y

    def prelu(self, x, name):
        return F.prelu(x, self.tensors[f"{name}.weight"].to(x.dtype))

    def linear(self, x, name, outputs, bias):
        return F.linear(x.to(self.wide), self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"] if bias else None)

    def flatten(self, x):
        return x.flatten(1)

    def sum(self, x, y):
        return x + y

    def full(self, x):
        return x.to(self.wide)


def iresnet(ops, x, layers, widths, embedding):
    """The last two layers are f32 in any precision."""
    x = ops.conv(x, "conv1", widths[0], 3, padding=1)
    x = ops.prelu(ops.norm(x, "bn1"), "prelu")
    for stage, (n_blocks, width) in enumerate(zip(layers, widths), 1):
        for number in range(n_blocks):
            name, stride = f"layer{stage}.{number}", 1 if number else 2
            y = ops.norm(x, f"{name}.bn1")
            y = ops.conv(y, f"{name}.conv1", width, 3, padding=1)
            y = ops.prelu(ops.norm(y, f"{name}.bn2"), f"{name}.prelu")
            y = ops.norm(ops.conv(y, f"{name}.conv2", width, 3, stride, 1), f"{name}.bn3")
            if stride == 2:
                x = ops.conv(x, f"{name}.downsample.0", width, 1, stride)
                x = ops.norm(x, f"{name}.downsample.1")
            x = ops.sum(y, x)
    x = ops.flatten(ops.norm(x, "bn2"))
    return ops.norm(ops.linear(x, "fc", embedding, bias=True), "features", learns=False)


def mobilefacenet(ops, x, blocks, scale, embedding):
    """From `conv_sep` on f32 in any precision."""

    def conv_norm(x, name, *args, **kwargs):
        return ops.norm(ops.conv(x, f"{name}.layers.0", *args, **kwargs), f"{name}.layers.1")

    def conv_block(x, name, *args, **kwargs):
        return ops.prelu(conv_norm(x, name, *args, **kwargs), f"{name}.layers.2")

    def depth_wise(x, name, groups, c_out, stride=1):
        y = conv_block(x, f"{name}.layers.0", groups, 1)
        y = conv_block(y, f"{name}.layers.1", groups, 3, stride, 1, groups)
        return conv_norm(y, f"{name}.layers.2", c_out, 1)

    def residual(x, name, n, width, groups):
        for number in range(n):
            x = ops.sum(depth_wise(x, f"{name}.layers.{number}", groups, width), x)
        return x

    narrow, wide = 64 * scale, 128 * scale
    x = conv_block(x, "layers.0", narrow, 3, 2, 1)
    if blocks[0] == 1:
        x = conv_block(x, "layers.1", narrow, 3, 1, 1, 64)
    else:
        x = residual(x, "layers.1", blocks[0], narrow, 128)
    x = depth_wise(x, "layers.2", 128, narrow, 2)
    x = residual(x, "layers.3", blocks[1], narrow, 128)
    x = depth_wise(x, "layers.4", 256, wide, 2)
    x = residual(x, "layers.5", blocks[2], wide, 256)
    x = depth_wise(x, "layers.6", 512, wide, 2)
    x = residual(x, "layers.7", blocks[3], wide, 256)
    x = conv_block(ops.full(x), "conv_sep", 512, 1, full=True)
    x = conv_norm(x, "features.layers.0", 512, 7, groups=512, full=True)
    return ops.norm(ops.linear(ops.flatten(x), "features.layers.2", embedding, bias=False), "features.layers.3")


def network(name):
    family, *shape = NETWORKS[name]
    build = {"iresnet": iresnet, "mobilefacenet": mobilefacenet}[family]
    return lambda ops, x, embedding: build(ops, x, *shape, embedding)


def entries_of(name, embedding):
    """(key, shape, whether it learns) of every tensor but counters, in state-dict order."""
    shapes = Shapes()
    network(name)(shapes, (3, SIDE, SIDE), embedding)
    return shapes.entries


def training_pass(name, embedding, kind, keys):
    """A function of the images and all tensors: embeddings first, then the moved running statistics."""

    def run(images, *tensors):
        layers = Layers(dict(zip(keys, tensors)), kind)
        embeddings = network(name)(layers, images, embedding)
        return embeddings, *(statistic.detach() for statistic in layers.statistics)

    return run


def drawn_inputs(entries, batch, device):
    """Images and tensors laid out as `pfc-train` has them, with numbers that keep activations in range."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda shape: torch.randn(shape, generator=generator)  # noqa: E731
    inputs = [draw((batch, 3, SIDE, SIDE)).to(device, memory_format=torch.channels_last)]
    for key, shape, learns in entries:
        if len(shape) > 1:
            tensor = draw(shape) / torch.tensor(shape[1:]).prod().sqrt()
        else:
            tensor = 1 + 0.1 * draw(shape).clamp(-3, 3) if not key.endswith(("bias", "mean")) else 0.1 * draw(shape)
        tensor = tensor.to(device)
        if len(shape) == 4 and device.startswith("cuda"):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        inputs.append(tensor.requires_grad_(learns))
    return inputs


# ---- the two graphs --------------------------------------------------------------------------------
class Captured:
    """Forward and backward of a function as plain graphs of operators, cut where least is kept."""

    def __init__(self, function, inputs):
        self.graphs = {}

        def keep(side):
            def compiler(graph, _):
                self.graphs[side] = graph
                return make_boxed_func(graph.forward)

            return compiler

        compiled = aot_function(
            function,
            fw_compiler=keep("forward"),
            bw_compiler=keep("backward"),
            partition_fn=min_cut_rematerialization_partition,
            decompositions=select_decomp_table(),
        )
        embeddings = compiled(*inputs)[0]
        embeddings.backward(torch.zeros_like(embeddings))


def outputs_of(graph):
    return list(next(node for node in graph.graph.nodes if node.op == "output").args[0])


def keep_outputs(graph, kept):
    """Leaves only the outputs at the places `kept`."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    output.args = (tuple(output.args[0][place] for place in kept),)
    graph.graph.eliminate_dead_code()
    graph.recompile()


class Compiled:
    """A graph as a package, and the package loaded."""

    def __init__(self, graph, inputs, path):
        with torch.no_grad():
            program = torch.export.export(Plain(graph), tuple(inputs))
            aoti_compile_and_package(program, package_path=str(path))
        self.run = aoti_load_package(str(path))
        self.inputs = inputs
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()


class Plain(torch.nn.Module):
    """A captured graph as a module of its own, which `torch.export` takes."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def forward(self, *inputs):
        return tuple(self.graph(*inputs))


class Packages:
    """Both passes of a network, compiled into a folder."""

    def __init__(self, args, folder):
        self.args = args
        self.entries = entries_of(args.network, args.embedding)
        keys = [key for key, _, _ in self.entries]
        self.inputs = drawn_inputs(self.entries, args.batch, args.device)
        self.function = training_pass(args.network, args.embedding, KINDS[args.precision], keys)
        graphs = Captured(self.function, self.inputs).graphs
        self.n_given = 1 + sum(key.endswith(("running_mean", "running_var")) for key in keys)
        forward, backward = graphs["forward"], graphs["backward"]
        plain = [tensor.detach() for tensor in self.inputs]
        places = [node for node in forward.graph.nodes if node.op == "placeholder"]
        outputs = outputs_of(forward)
        # What the backward pass takes that the forward pass was given goes from one to the other by itself.
        fresh = [place for place, node in enumerate(outputs) if place < self.n_given or node.op != "placeholder"]
        saved = outputs[self.n_given :]
        self.sources = [
            {"input": places.index(node)}
            if node.op == "placeholder"
            else {"output": fresh.index(self.n_given + place)}
            for place, node in enumerate(saved)
        ]
        keep_outputs(forward, fresh)
        keep_outputs(backward, [place for place, node in enumerate(outputs_of(backward)) if node is not None])
        self.forward = Compiled(forward, plain, folder / "forward.pt2")
        outputs = self.forward.run(*plain)
        gradient = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1)).to(args.device)
        self.backward = Compiled(backward, [*self.passed_on(plain, outputs), gradient], folder / "backward.pt2")
        self.outputs = outputs
        self.gradient = gradient

    def passed_on(self, inputs, outputs):
        return [inputs[at["input"]] if "input" in at else outputs[at["output"]] for at in self.sources]

    def compiled_pass(self):
        """Embeddings and statistics, and the gradients of all that learns."""
        with torch.no_grad():
            plain = [tensor.detach() for tensor in self.inputs]
            outputs = self.forward.run(*plain)
            gradients = self.backward.run(*self.passed_on(plain, outputs), self.gradient)
        return outputs[: self.n_given], gradients

    def eager_pass(self, kind=None):
        inputs = self.inputs
        function, gradient = self.function, self.gradient
        if kind is not None:
            inputs = [tensor.detach().to(kind).requires_grad_(tensor.requires_grad) for tensor in inputs]
            keys = [key for key, _, _ in self.entries]
            function = training_pass(self.args.network, self.args.embedding, kind, keys)
            gradient = gradient.to(kind)
        outputs = function(*inputs)
        learning = [tensor for tensor in inputs if tensor.requires_grad]
        return [output.detach() for output in outputs], torch.autograd.grad(outputs[0], learning, gradient)

    def manifest(self):
        names = ["images", *(key for key, _, _ in self.entries)]
        return {
            "format": FORMAT,
            "network": self.args.network,
            "embedding": self.args.embedding,
            "batch": self.args.batch,
            "precision": self.args.precision,
            "device": self.args.device.split(":")[0],
            "torch": torch.__version__.split("+")[0],
            "inputs": [described(name, tensor) for name, tensor in zip(names, self.inputs)],
            "given": [described("", tensor) for tensor in self.outputs],
            "learns": [key for key, _, learns in self.entries if learns],
            "sources": self.sources,
            "forward_sha256": self.forward.sha256,
            "backward_sha256": self.backward.sha256,
        }


def described(name, tensor):
    kind = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}.get(tensor.dtype, str(tensor.dtype))
    return {"name": name, "shape": list(tensor.shape), "strides": list(tensor.stride()), "kind": kind}


# ---- what is asked for -----------------------------------------------------------------------------
def difference(found, expected):
    """Of the largest number of all tensors expected, the largest difference."""
    scale = max(tensor.abs().max().item() for tensor in expected)
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(found, expected)) / scale


def ms_of(work, args):
    wait = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    times = []
    for _ in range(args.passes + 1):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[1:])


def compare(packages):
    """What compiled and eager passes differ by, from one another and from f64 where that is quick, and take."""
    args = packages.args
    compiled, eager = packages.compiled_pass(), packages.eager_pass()
    figures = {}
    if args.exact:
        exact = packages.eager_pass(torch.float64)
    for place, what in enumerate(("outputs", "gradients")):
        pairs = {"difference": (compiled[place], eager[place])}
        if args.exact:
            pairs["compiled_error"] = (compiled[place], exact[place])
            pairs["eager_error"] = (eager[place], exact[place])
        for name, (found, expected) in pairs.items():
            assert len(found) == len(expected), (name, what, len(found), len(expected))
            figures[f"{what}_{name}"] = difference(found, expected)
    if args.passes:
        figures["compiled_ms"] = ms_of(packages.compiled_pass, args)
        figures["eager_ms"] = ms_of(packages.eager_pass, args)
        figures["ratio"] = figures["eager_ms"] / figures["compiled_ms"]
    return figures


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--batch", type=int, required=True, help="images of a rank in a pass")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")
    parser.add_argument("--embedding", type=int, default=512)
    parser.add_argument("--precision", choices=sorted(KINDS), default="f32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--passes", type=int, default=3, help="timed of each kind, or 0 (3)")
    parser.add_argument("--exact", action="store_true", help="compare with f64 as well")
    return parser.parse_args()


def refuse(what):
    print(f"error: {what}", file=sys.stderr)
    raise SystemExit(2)


def umask():
    """The process's, which the system tells only to who sets it."""
    now = os.umask(0o077)
    os.umask(now)
    return now


def main():
    args = arguments()
    if args.batch < 2:
        refuse(f"--batch is {args.batch}, but has to be at least 2: one image has no variance")
    if args.out.exists():
        refuse(f"{args.out} exists; remove it, or name another folder with --out")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    # Appears whole or not at all.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{args.out.name}.", dir=args.out.parent))
    try:
        packages = Packages(args, folder)
        compiled_s = time.perf_counter() - started
        (folder / "manifest.json").write_text(json.dumps(packages.manifest(), indent=1) + "\n")
        print(json.dumps({"compiled_s": compiled_s, **compare(packages)}), flush=True)
        os.chmod(folder, 0o777 & ~umask())
        os.rename(folder, args.out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
