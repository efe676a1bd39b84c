"""What a device can do, and an IResNet in plain PyTorch, to measure pfc-train against on a GPU.

Usage: python gpu_baseline.py roof [--device D] [--identities C] [--batch N] [--steps S]
       python gpu_baseline.py net [--device D] [--math f32|bf16] [--layers 3,4,14,3] [--batch N] [--steps S]

`roof`: a copy within the device, the three products of the head at a share of 0.1 in bf16, one pass of
exponentials, a copy of a batch of images from pinned memory. `net`: training steps of the network with its
optimizer, without head and data. Prints a JSON object a line.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["roof", "net"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--layers", default="3,4,14,3", help="blocks of each stage; 3,4,14,3 is r50")
    parser.add_argument("--side", type=int, default=112, help="pixels, a multiple of 16")
    parser.add_argument("--math", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    return parser.parse_args()


def median_ms(args, work):
    """Of `steps` calls, the device waited for before and after each."""
    wait = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    times = []
    for _ in range(args.warm_up + args.steps):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[args.warm_up :])


def report(args, **figures):
    if args.device.startswith("cuda"):
        figures["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(figures), flush=True)


def roof(args):
    on_gpu = args.device.startswith("cuda")
    size = 2**31 if on_gpu else 2**24
    source = torch.zeros(size, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    ms = median_ms(args, lambda: target.copy_(source))
    report(args, what="copy", gb_per_s=2 * size / ms / 1e6)
    del source, target
    rows, dim = args.identities // 10, 512
    unit = lambda n: nn.functional.normalize(torch.randn(n, dim, device=args.device)).bfloat16()
    centres, embeddings = unit(rows), unit(args.batch)
    slopes = torch.rand(rows, args.batch, device=args.device).bfloat16()
    work = {
        "cosines": lambda: torch.mm(centres, embeddings.T),
        "by embeddings": lambda: torch.mm(slopes.T, centres),
        "by centres": lambda: torch.mm(slopes, embeddings),
    }
    for what, product in work.items():
        ms = median_ms(args, product)
        report(args, what=what, rows=rows, batch=args.batch, ms=ms, tflops=2 * rows * args.batch * dim / ms / 1e9)
    ms = median_ms(args, lambda: torch.exp(slopes))
    report(args, what="exponentials", ms=ms, gb_per_s=4 * slopes.numel() / ms / 1e6)
    images = torch.zeros(args.batch * 3 * args.side**2, dtype=torch.uint8)
    images = images.pin_memory() if on_gpu else images
    ms = median_ms(args, lambda: images.to(args.device, non_blocking=True))
    report(args, what="images to the device, as bytes", mb=images.numel() / 1e6, ms=ms)


class Block(nn.Module):
    """A residual block of IResNet: normalise, filter, normalise, rectify, filter, normalise."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(n_in),
            nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.PReLU(n_out),
            nn.Conv2d(n_out, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        down = [nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)]
        self.short_cut = nn.Sequential(*down) if stride > 1 else nn.Identity()

    def forward(self, x):
        return self.body(x) + self.short_cut(x)


def iresnet(layers, side):
    parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    n_in = 64
    for n_blocks, n_out in zip(layers, (64, 128, 256, 512)):
        for block in range(n_blocks):
            parts.append(Block(n_in, n_out, 1 if block else 2))
            n_in = n_out
    parts += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * (side // 16) ** 2, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*parts)


def net(args):
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    layers = [int(n) for n in args.layers.split(",")]
    network = iresnet(layers, args.side).to(args.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    images = torch.rand(args.batch, 3, args.side, args.side, device=args.device).mul_(2).sub_(1)
    images = images.contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(args.batch, 512, device=args.device) / args.batch

    def step():
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.math == "bf16"):
            embeddings = network(images)
        embeddings.float().backward(gradient)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    ms = median_ms(args, step)
    report(args, what="net", layers=layers, batch=args.batch, math=args.math, ms=ms, images_per_s=args.batch / ms * 1e3)


if __name__ == "__main__":
    args = arguments()
    {"roof": roof, "net": net}[args.what](args)
