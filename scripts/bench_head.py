"""A dense-update Partial FC head in PyTorch, written from the published semantics, and its times.

Usage: python bench_head.py --identities C --rate R --batch N --dim D --steps S --warm-up W
                            [--device cpu|cuda] [--math f32|tf32|bf16]

One rank of the second version of the reference's head: every step draws the rows from a vector of C
random numbers of the CPU, gathers them through autograd, and moves every row of the weight with SGD, momentum and
weight decay. Prints one JSON object: milliseconds of each timed step and the peak memory in MiB, of the
GPU where there is one.
"""

import argparse
import json
import resource
import time

import torch
from torch.nn.functional import cross_entropy, linear, normalize


class DenseHead(torch.nn.Module):
    """Softmax with CosFace's margin over all positives and a share of the negatives."""

    def __init__(self, identities, dim, rate, scale=64.0, margin=0.4, device="cpu", math="f32"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(identities, dim, device=device).normal_(0, 0.01))
        self.math = math
        self.n_rows = int(rate * identities)
        self.scale, self.margin = scale, margin

    def rows(self, labels):
        """The step's rows, ascending, and the labels as positions among them."""
        positives = labels.unique(sorted=True)
        rows = positives
        if self.n_rows >= len(positives):
            scores = torch.rand(len(self.weight)).to(labels.device)
            scores[positives] = 2.0
            rows = torch.topk(scores, k=self.n_rows)[1].sort()[0]
        return rows, torch.searchsorted(rows, labels)

    def forward(self, embeddings, labels):
        weight = self.weight
        if self.n_rows < len(self.weight):
            rows, labels = self.rows(labels)
            weight = self.weight[rows]
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.math == "bf16"):
            cosines = linear(normalize(embeddings), normalize(weight))
        cosines = cosines.float().clamp(-1, 1)
        own = torch.arange(len(labels), device=labels.device)
        cosines[own, labels] = cosines[own, labels] - self.margin
        return cross_entropy(cosines * self.scale, labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--identities", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--math", choices=["f32", "tf32", "bf16"], default="f32")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = args.math == "tf32"
    on_gpu = args.device.startswith("cuda")
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    head = DenseHead(args.identities, args.dim, args.rate, device=args.device, math=args.math)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    times = []
    for _ in range(args.warm_up + args.steps):
        embeddings = torch.randn(args.batch, args.dim, device=args.device, requires_grad=True)
        labels = torch.randint(args.identities, (args.batch,), device=args.device)
        wait()
        start = time.perf_counter()
        head(embeddings, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        wait()
        times.append((time.perf_counter() - start) * 1e3)
    # Linux counts it in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"step_ms": times[args.warm_up :], "peak_mib": peak}))


if __name__ == "__main__":
    main()
