"""Times steps of pfc.torch.PartialFC, of a head in plain PyTorch, or of PyTorch's products alone.

Usage: bench_python_head.py pfc|pytorch|products CLASSES RATE BATCH DIM STEPS

A step is forward, backward, opt.step and zero_grad of the head, with SGD, momentum and weight decay; embeddings are
made up. `products` times the three products of a step in tiles of 1,024 rows and nothing else. Prints JSON: the
milliseconds of each step after the first two, and the peak memory in MiB. `scripts/bench-python head` runs it.
"""

import json
import resource
import sys
import time

import torch
from bench_head import DenseHead

TILE_ROWS = 1024


def head_of(kind, classes, dim, rate):
    if kind == "pytorch":
        return DenseHead(classes, dim, rate)
    from pfc.torch import Margin, PartialFC

    return PartialFC(Margin.cosface(0.4), dim, classes, rate)


def steps_of_head(kind, classes, rate, batch, dim):
    """A function that takes a step."""
    torch.manual_seed(0)
    head = head_of(kind, classes, dim, rate)
    opt = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    is_first = True

    def step(embeddings, labels):
        nonlocal is_first
        head(embeddings, labels).backward()
        opt.step()
        opt.zero_grad()
        if is_first and kind == "pfc":
            # As in a long run: PyTorch has touched every row after its first step too.
            opt.state[head.handle]["momentum_buffer"].mul_(1.0)
        is_first = False

    return step


def steps_of_products(classes, rate, batch, dim):
    """A function that multiplies as a step does."""
    n_tiles = -(-int(rate * classes) // TILE_ROWS)
    rows_td = torch.randn(TILE_ROWS, dim)
    cos_tg, gradient_td = torch.empty(TILE_ROWS, batch), torch.empty(TILE_ROWS, dim)
    weighted_gd = torch.zeros(batch, dim)

    def step(embeddings, labels):
        with torch.no_grad():
            for _ in range(n_tiles):
                torch.mm(rows_td, embeddings.T, out=cos_tg)
                weighted_gd.addmm_(cos_tg.T, rows_td)
                torch.mm(cos_tg, embeddings, out=gradient_td)
            weighted_gd.zero_()

    return step


def main():
    kind, (classes, rate, batch, dim, steps) = sys.argv[1], sys.argv[2:]
    classes, rate, batch, dim = int(classes), float(rate), int(batch), int(dim)
    if kind == "products":
        step = steps_of_products(classes, rate, batch, dim)
    else:
        step = steps_of_head(kind, classes, rate, batch, dim)
    times = []
    for _ in range(int(steps) + 2):
        embeddings = torch.randn(batch, dim, requires_grad=kind != "products")
        labels = torch.randint(classes, (batch,))
        start = time.perf_counter()
        step(embeddings, labels)
        times.append((time.perf_counter() - start) * 1e3)
    # Linux counts it in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"step_ms": times[2:], "peak_mib": peak}))


if __name__ == "__main__":
    main()
