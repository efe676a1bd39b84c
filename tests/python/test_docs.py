"""The blocks of docs/python.md and of the package's README run as printed."""

import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, golden, safetensors


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
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_runs_from_top_to_bottom(folder):
    pytest.importorskip("torch")
    found = blocks(ROOT / "docs" / "python.md")
    assert len(found) >= 9
    printed = run("\n".join(found), folder)
    assert "42 images of 7 people" in printed and "as papers read it" in printed


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
