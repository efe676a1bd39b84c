#!/usr/bin/env python3
"""Alternates bench_backbone with the same network in PyTorch eager and prints the ratio.

    cargo build --release -p pfc-model --example bench_backbone
    python3 crates/model/examples/bench_backbone.py target/release/examples/bench_backbone mbf 128

Needs PyTorch. PyTorch gets what its users give it: channels-last, and bf16 autocast up to where the
reference ends it. Rounds alternate because shared machines drift; CPU time drifts least.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, padding=None, prelu=True):
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.PReLU(outputs)] if prelu else []))


class Add(nn.Module):
    """x + branch(x), or shortcut(x) + branch(x)."""

    def __init__(self, branch, shortcut=None):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x):
        return (x if self.shortcut is None else self.shortcut(x)) + self.branch(x)


def separable(inputs, between, outputs, stride):
    return nn.Sequential(
        conv_bn(inputs, between),
        conv_bn(between, between, 3, stride, between),
        conv_bn(between, outputs, prelu=False),
    )


def mobilefacenet(blocks, scale):
    narrow, wide = 64 * scale, 128 * scale

    def stack(n, width, between):
        return [Add(separable(width, between, width, 1)) for _ in range(n)]

    second = [conv_bn(narrow, narrow, 3, groups=64)] if blocks[0] == 1 else stack(blocks[0], narrow, 128)
    body = [conv_bn(3, narrow, 3, 2), *second, separable(narrow, 128, narrow, 2)]
    body += [*stack(blocks[1], narrow, 128), separable(narrow, 256, wide, 2)]
    body += [*stack(blocks[2], wide, 256), separable(wide, 512, wide, 2), *stack(blocks[3], wide, 256)]
    pooling = conv_bn(512, 512, 7, groups=512, padding=0, prelu=False)
    embedding = [nn.Flatten(), nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512)]
    return nn.Sequential(*body), nn.Sequential(conv_bn(wide, 512), pooling, *embedding)


def iresnet(layers):
    def block(inputs, outputs, stride):
        bn = nn.BatchNorm2d(inputs)
        branch = [bn, conv_bn(inputs, outputs, 3), conv_bn(outputs, outputs, 3, stride, prelu=False)]
        shortcut = conv_bn(inputs, outputs, 1, 2, prelu=False) if stride == 2 else None
        return Add(nn.Sequential(*branch), shortcut)

    body, inputs = [conv_bn(3, 64, 3)], 64
    for n, width in zip(layers, (64, 128, 256, 512)):
        for i in range(n):
            body.append(block(inputs, width, 2 if i == 0 else 1))
            inputs = width
    body += [nn.BatchNorm2d(512), nn.Flatten()]
    return nn.Sequential(*body), nn.Sequential(nn.Linear(25088, 512), nn.BatchNorm1d(512))


NETWORKS = {
    "mbf": lambda: mobilefacenet((1, 4, 6, 2), 2),
    "mbf_large": lambda: mobilefacenet((2, 8, 12, 4), 4),
    "r18": lambda: iresnet((2, 2, 2, 2)),
    "r34": lambda: iresnet((3, 4, 6, 3)),
    "r50": lambda: iresnet((3, 4, 14, 3)),
    "r100": lambda: iresnet((3, 13, 30, 3)),
}


def pytorch_step(body, head, images, bf16):
    for part in (body, head):
        part.zero_grad(set_to_none=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = body(images)
    embeddings = head(features.float())
    embeddings.square().sum().backward()


def run_pytorch(options):
    """The same lines as the Rust side prints: (images/s, CPU ms per image) of each step."""
    torch.set_num_threads(options.threads)
    body, head = (part.to(memory_format=torch.channels_last).train() for part in NETWORKS[options.network]())
    images = torch.randn(options.batch, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    figures = []
    for step in range(options.steps + 1):
        before, start = os.times(), time.perf_counter()
        pytorch_step(body, head, images, options.precision == "bf16")
        seconds, after = time.perf_counter() - start, os.times()
        cpu = after.user + after.system - before.user - before.system
        if step > 0:
            figures.append((options.batch / seconds, 1e3 * cpu / options.batch))
    return figures


def run_ours(options):
    arguments = [options.network, options.batch, options.precision, options.steps, options.threads]
    command = [options.binary, *map(str, arguments)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(float(line.split()[0]), float(line.split()[2])) for line in text.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the built example")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("batch", type=int)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    ours, theirs = [], []
    for round_idx in range(options.rounds):
        ours += run_ours(options)
        theirs += run_pytorch(options)
        print(f"round {round_idx + 1} of {options.rounds} done", file=sys.stderr)
    name = f"{options.network}, batch {options.batch}, {options.precision}, {options.threads} threads"
    print(f"{name} (medians)")
    for label, column in (("images/s", 0), ("CPU ms per image", 1)):
        a, b = (statistics.median(row[column] for row in rows) for rows in (ours, theirs))
        ratio = b / a if column == 0 else a / b
        print(f"  {label:<17} pfc {a:8.2f}   PyTorch {b:8.2f}   time ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
