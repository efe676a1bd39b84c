#!/usr/bin/env python3
"""A run with compiled passes takes the steps of one without.

usage: check_compiled.py PFC-TRAIN

Two runs of one step and of the same seed: gradients, which are the first momentum of SGD, and running statistics
are compared. A gradient of f32 is a sum of at most N = 16 * 112 * 112 products in a layer, and a network of 12
layers rounds its way 12 times forwards and 12 times backwards: 24 * sqrt(N) * 2^-24, 6.4e-4 of the largest
number, is what rounding at random comes to.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch

NETWORK, EMBEDDING, BATCH = "r10_w8", 24, 16
BOUND = 24 * (BATCH * 112 * 112) ** 0.5 * 2**-24
CONFIG = f"""
data.synthetic = {{ identities = 20, images = 32 }}
data.loader_threads = 1
[model]
network = "{NETWORK}"
embedding = {EMBEDDING}
precision = "f32"
[optim]
warmup_epochs = 0
weight_decay = 0.0
clip_norm = 0.0
[train]
batch_size = {BATCH}
steps = 1
threads = 1
device = "cpu"
[log]
every_steps = 1
"""


def run(program, folder, name, *sets):
    config, out = folder / "run.toml", folder / name
    config.write_text(CONFIG)
    command = [program, "run", config, "--out", out, "-q", *(f"--set={text}" for text in sets)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done, out


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    try:
        from safetensors.torch import load_file
    except ImportError:
        print("skipped: safetensors is not installed")
        return
    if not torch.__version__.startswith("2.11.0"):
        print(f"skipped: torch is {torch.__version__}, and packages are compiled with 2.11.0")
        return
    script = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "compile-backbone"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        packages = folder / "packages"
        command = [script, NETWORK, "--batch", str(BATCH), "--embedding", str(EMBEDDING), "--device", "cpu"]
        subprocess.run([*command, "--passes", "0", "--out", packages], check=True)
        compiled = f'model.compiled="{packages}"'
        outs = []
        for name, sets in (("eager", []), ("compiled", [compiled])):
            done, out = run(program, folder, name, *sets)
            assert done.returncode == 0, done.stderr
            outs.append(sorted((out / "checkpoints").glob("*.ckpt"))[-1])
        for file in ("optimizer.safetensors", "backbone.safetensors"):
            eager, found = (load_file(out / file) for out in outs)
            assert eager.keys() == found.keys()
            scale = max(tensor.double().abs().max() for tensor in eager.values())
            for key, tensor in eager.items():
                error = ((tensor.double() - found[key].double()).abs().max() / scale).item()
                assert error < BOUND, f"{file}: {key}: {error}, more than {BOUND}"
            print(f"{file}: {len(eager)} tensors agree")
        done, _ = run(program, folder, "other", compiled, "train.batch_size=8")
        assert done.returncode == 2 and "the batch is 16, but has to be 8" in done.stderr, done.stderr
        with (packages / "forward.pt2").open("ab") as package:
            package.write(b"x")
        done, _ = run(program, folder, "changed", compiled)
        assert done.returncode == 2 and "the SHA-256 of forward.pt2" in done.stderr, done.stderr
        print("packages of another batch, and changed ones, are refused")


if __name__ == "__main__":
    main()
