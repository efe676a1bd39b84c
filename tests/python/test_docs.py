"""The blocks of Python in the book and in the package's README run as printed."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from conftest import ROOT, golden, ingest, safetensors


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, packed, rec_file, bin_file):
    """A folder with the files that the pages name."""
    (tmp_path / "faces.pfc").symlink_to(packed)
    for path, name in ((rec_file[0], "train.rec"), (bin_file[0], "lfw.bin")):
        (tmp_path / name).symlink_to(path)
    shutil.copy(golden("backbones") / "iresnet1111_w8_e64.onnx", tmp_path / "model.onnx")
    (tmp_path / "IJBC").symlink_to(golden("ijb") / "IJBC")
    features = safetensors(tmp_path / "IJBC" / "features.safetensors")
    np.savez(tmp_path / "features.npz", original=features["embs"], mirrored=features["embs_f"])
    return tmp_path


def run(code, folder):
    # From a file, as workers that are spawned read it again; and not when they do.
    lines = "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
    path = [
        "import os, sys\n",
        "if 'PFC_TORCH' in os.environ: sys.path.append(os.environ['PFC_TORCH'])\n",
    ]
    (folder / "page.py").write_text("".join(path) + f"if __name__ == '__main__':\n{lines}")
    # Hugging Face's libraries ask nobody.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "page.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_runs_from_top_to_bottom(folder):
    pytest.importorskip("torch")
    found = blocks(ROOT / "docs" / "python.md")
    assert len(found) >= 9
    printed = run("\n".join(found), folder)
    assert "42 images of 7 people" in printed and "as papers read it" in printed


#: Pages with a block to paste, the packages that it needs, and what it prints of the data below.
PASTED = {
    "cleaning.md": (["polars"], "few_images"),
    "data-set.md": (["duckdb"], "first.jpg, of "),
    "evaluating.md": ([], "most like the first: ['a.jpg', 'b.jpg', 'c.jpg']"),
    "formats.md": (["safetensors"], ""),
    "inputs.md": (["datasets"], "(112, 112)"),
    "json.md": ([], "lfw.json LFW 0.75 None"),
    "watching.md": (["polars"], "2.5"),
}


@pytest.fixture
def pasted(tmp_path, packed):
    """A folder with the files that those pages name."""
    shutil.copytree(packed, tmp_path / "faces.pfc", copy_function=shutil.copyfile)
    ingest("export", packed, tmp_path / "hf", "--to", "parquet")
    ingest("clean", tmp_path / "faces.pfc", "--pass", "few", "--min-images", "1000")
    vectors = pa.array([[2.0, 0.0], [3.0, 1.0], [0.0, 1.0]], pa.list_(pa.float32(), 2))
    table = pa.table({"source": ["a.jpg", "b.jpg", "c.jpg"], "embedding": vectors})
    with pyarrow.ipc.new_file(tmp_path / "faces.arrow", table.schema) as file:
        file.write(table)
    figures = {"set": "LFW", "accuracy": {"mean": 0.75, "interval": None}}
    (tmp_path / "lfw.json").write_text(json.dumps({"results": [{"figures": figures}]}))
    step = {"kind": "train", "step": 10, "epoch": 0.5, "loss": 2.5, "lr": 0.1, "images_per_s": 9.0}
    lines = [{"kind": "eval", "step": 0, "epoch": 0.0, "set": "lfw", "accuracy": 0.75}, step]
    (tmp_path / "runs/a/last.ckpt").mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / "runs/a/last.ckpt/backbone.safetensors").write_bytes(content)
    (tmp_path / "runs/a/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.mark.parametrize("page", PASTED)
def test_a_block_to_paste_runs(page, pasted):
    packages, printed = PASTED[page]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the block of docs/{page} needs {package}, which is not installed")
    (block,) = blocks(ROOT / "docs" / page)
    assert printed in run(block, pasted)


def test_every_block_of_python_is_run_here():
    pages = {page.name for page in (ROOT / "docs").glob("*.md") if blocks(page)}
    assert pages == {"python.md", *PASTED}


def test_the_block_of_the_readme_runs(folder):
    (folder / "work").mkdir()
    (folder / "faces.pfc").rename(folder / "work/glint360k.pfc")
    (block,) = blocks(ROOT / "README.md")
    prepare = "import numpy as np\na = b = np.eye(20)\nissame = [True, False] * 10\n"
    run(prepare + block, folder)


def test_the_readme_of_the_package_runs(folder):
    (block,) = blocks(ROOT / "crates" / "python" / "README.md")
    prepare = "import numpy as np\na = b = np.eye(20)\nissame = [True, False] * 10\n"
    run(prepare + block, folder)


def test_every_function_is_on_the_page():
    import pfc

    page = (ROOT / "docs" / "python.md").read_text()
    for name in ("Dataset", "Embedder", "open_rec", "open_bin", "verification", "nn", "ijb"):
        assert f"pfc.{name}" in page and hasattr(pfc, name)
    assert "pfc.torch.PartialFC" in page
    assert pathlib.Path(pfc.__file__).exists()
