#!/usr/bin/env python3
"""The recipe of data/configs/lfw-devtrain-mbf.toml in plain PyTorch, to measure pfc-train against.

    python3 -m venv .venv
    .venv/bin/pip install torch==2.11.0 numpy pillow
    .venv/bin/python scripts/yardstick.py work/lfw-devtrain --pairs LFW pairsDevTest.txt

Reads a folder with one sub-folder of 112x112 images per identity, trains MobileFaceNet with CosFace
over all positive and a share of random negative centres, and prints a JSON line every few steps and
after every epoch, with the keys of pfc-train's metrics.jsonl.
"""

import argparse
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn


# ---- network -------------------------------------------------------------------------------------
def conv_bn(c_in, c_out, kernel=1, stride=1, padding=0, groups=1, act=True):
    layers = [
        nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    return nn.Sequential(*layers, *([nn.PReLU(c_out)] if act else []))


class Bottleneck(nn.Module):
    """Widen, filter each channel by itself, narrow; with a short cut where the shape allows."""

    def __init__(self, c_in, c_out, wide, stride=1, residual=True):
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(
            conv_bn(c_in, wide),
            conv_bn(wide, wide, 3, stride, 1, groups=wide),
            conv_bn(wide, c_out, act=False),
        )

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class MobileFaceNet(nn.Module):
    """Blocks 1-4-6-2 at channel scale 2, the `mbf` of InsightFace."""

    def __init__(self, embedding, blocks=(1, 4, 6, 2), scale=2):
        super().__init__()
        s = scale

        def stage(width, wide, n):
            return [Bottleneck(width, width, wide) for _ in range(n)]

        def down(c_in, c_out, wide):
            return Bottleneck(c_in, c_out, wide, 2, residual=False)

        first = (
            [conv_bn(64 * s, 64 * s, 3, 1, 1, groups=64)]
            if blocks[0] == 1
            else stage(64 * s, 128, blocks[0])
        )
        self.features = nn.Sequential(
            conv_bn(3, 64 * s, 3, 2, 1),
            *first,
            down(64 * s, 64 * s, 128),
            *stage(64 * s, 128, blocks[1]),
            down(64 * s, 128 * s, 256),
            *stage(128 * s, 256, blocks[2]),
            down(128 * s, 128 * s, 512),
            *stage(128 * s, 256, blocks[3]),
        )
        self.pool = nn.Sequential(
            conv_bn(128 * s, 512), conv_bn(512, 512, 7, groups=512, act=False)
        )
        self.linear = nn.Linear(512, embedding, bias=False)
        self.norm = nn.BatchNorm1d(embedding)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x, bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            x = self.features(x)
        # f32 from here on, as InsightFace has it.
        return self.norm(self.linear(self.pool(x.float()).flatten(1)))


# ---- head ----------------------------------------------------------------------------------------
class RandomNegatives(nn.Module):
    """CosFace over all positive centres of a batch and random negatives; dense SGD on all rows."""

    def __init__(self, n_classes, dim, rate, scale, margin):
        super().__init__()
        self.weight = nn.Parameter(torch.normal(0, 0.01, (n_classes, dim)))
        self.n_sampled, self.scale, self.margin = int(rate * n_classes), scale, margin

    def forward(self, embeddings, labels):
        scores = torch.rand(self.weight.shape[0])
        scores[labels] = 2.0
        n = max(self.n_sampled, int((scores == 2.0).sum()))
        rows = scores.topk(n).indices.sort().values
        target = torch.searchsorted(rows, labels)
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.weight[rows])).clamp(-1, 1)
        positive = F.one_hot(target, n).bool()
        with torch.no_grad():
            cavg = cosines[positive].mean().item()
        logits = self.scale * (cosines - self.margin * positive)
        return F.cross_entropy(logits, target), cavg


# ---- data ----------------------------------------------------------------------------------------
def read_rgb(path):
    image = np.asarray(Image.open(path).convert("RGB"))
    if image.shape != (112, 112, 3):
        raise SystemExit(f"error: {path}: is {image.shape}, not 112x112")
    return image


def to_batch(images):
    """[B, 3, 112, 112], normalised, channels-last in memory."""
    pixels = torch.from_numpy(np.stack(images)).float()
    return ((pixels - 127.5) / 127.5).permute(0, 3, 1, 2)


def identity_folder(root):
    paths, labels = [], []
    for label, name in enumerate(sorted(os.listdir(root))):
        for file in sorted(os.listdir(os.path.join(root, name))):
            paths.append(os.path.join(root, name, file))
            labels.append(label)
    return paths, torch.tensor(labels)


def lfw_pairs(root, path):
    """(left, right, same) of a list in LFW's layout, or of lines `path path 0|1`."""
    def face(name, number):
        return os.path.join(root, name, f"{name}_{int(number):04d}.jpg")

    pairs = []
    for line in open(path, encoding="utf-8"):
        f = line.split()
        if len(f) == 4:
            pairs.append((face(f[0], f[1]), face(f[2], f[3]), False))
        elif len(f) == 3 and "/" in f[0]:
            pairs.append((os.path.join(root, f[0]), os.path.join(root, f[1]), f[2] == "1"))
        elif len(f) == 3:
            pairs.append((face(f[0], f[1]), face(f[0], f[2]), True))
    return pairs


# ---- verification --------------------------------------------------------------------------------
@torch.no_grad()
def verify(net, pairs, bf16, batch=64):
    """Accuracy at the best threshold and AUC, embeddings of image and mirror image summed."""
    net.eval()
    names = sorted({name for left, right, _ in pairs for name in (left, right)})
    rows = []
    for start in range(0, len(names), batch):
        images = to_batch([read_rgb(name) for name in names[start : start + batch]])
        rows.append(net(images, bf16) + net(images.flip(3), bf16))
    net.train()
    unit = dict(zip(names, F.normalize(torch.cat(rows).double())))
    score = np.array([float(unit[a] @ unit[b]) for a, b, _ in pairs])
    same = np.array([s for _, _, s in pairs])
    distance = 2 - 2 * score
    accuracy = max(float(((distance < i * 0.01) == same).mean()) for i in range(400))
    ranks = np.empty(len(score))
    ranks[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    n_same, n_other = same.sum(), (~same).sum()
    auc = (ranks[same].sum() - n_same * (n_same + 1) / 2) / (n_same * n_other)
    return accuracy, float(auc)


# ---- training ------------------------------------------------------------------------------------
def learning_rate(step, base, n_warmup, n_steps):
    if step < n_warmup:
        return base * step / n_warmup
    return base * (1 - (step - n_warmup) / max(1, n_steps - n_warmup))


def say(**record):
    print(json.dumps(record), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder with one sub-folder of 112x112 images per identity")
    parser.add_argument("--pairs", nargs=2, metavar=("FOLDER", "LIST"), help="verification set")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--max-steps", type=int, default=0, help="stop early, for a measurement")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--embedding", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.1, help="share of the centres in a step")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--warmup-epochs", type=float, default=1)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=2048)
    parser.add_argument("--f32", action="store_true", help="no bf16 autocast")
    return parser.parse_args()


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    bf16 = not args.f32
    paths, labels = identity_folder(args.data)
    pairs = lfw_pairs(*args.pairs) if args.pairs else []
    net = MobileFaceNet(args.embedding).to(memory_format=torch.channels_last)
    head = RandomNegatives(int(labels.max()) + 1, args.embedding, args.rate, 64.0, 0.4)
    optimizer = torch.optim.SGD(
        [*net.parameters(), *head.parameters()], lr=args.lr, momentum=0.9, weight_decay=5e-4
    )
    per_epoch = len(paths) // args.batch
    n_steps = per_epoch * args.epochs
    generator = np.random.default_rng(args.seed)
    reader = ThreadPoolExecutor(1)

    def load(rows, mirrored):
        images = [read_rgb(paths[row]) for row in rows]
        return to_batch([im[:, ::-1] if m else im for im, m in zip(images, mirrored)])

    def batches():
        for _ in range(args.epochs):
            order = generator.permutation(len(paths))[: per_epoch * args.batch]
            for rows in order.reshape(per_epoch, args.batch):
                yield rows, reader.submit(load, rows, generator.random(args.batch) < 0.5)

    def evaluate(step):
        if pairs:
            accuracy, auc = verify(net, pairs, bf16)
            say(kind="eval", step=step, epoch=step / per_epoch, set="pairs", accuracy=accuracy, auc=auc)

    evaluate(0)
    queue, ahead = batches(), []
    window, epoch_losses, busy = [], [], 0.0
    for step in range(n_steps):
        started = time.perf_counter()
        while len(ahead) < 3 and (item := next(queue, None)):
            ahead.append(item)
        rows, images = ahead.pop(0)
        lr = learning_rate(step, args.lr, args.warmup_epochs * per_epoch, n_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, cavg = head(net(images.result(), bf16), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(net.parameters(), 5.0).item()
        if not math.isfinite(loss.item() + grad_norm):
            raise SystemExit(f"error: step {step + 1}: loss {loss.item()}, gradient {grad_norm}")
        optimizer.step()
        window.append((loss.item(), grad_norm, cavg))
        epoch_losses.append(loss.item())
        busy += time.perf_counter() - started
        done = step + 1
        if done % args.log_every == 0 or done == n_steps:
            means = [float(np.mean(column)) for column in zip(*window)]
            rate = len(window) * args.batch / busy
            say(kind="train", step=done, epoch=done / per_epoch, loss=means[0], grad_norm=means[1],
                lr=lr, cavg=means[2], images_per_s=rate)
            window, busy = [], 0.0
        if done == args.max_steps:
            break
        if done % per_epoch == 0:
            say(kind="epoch", step=done, epoch=done // per_epoch, mean_loss=float(np.mean(epoch_losses)))
            epoch_losses = []
            evaluate(done)


if __name__ == "__main__":
    main()
