"""How the programs of the wheel pfc-tools find their libraries: with folders that look like installed packages."""

import importlib
import pathlib
import sys

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "packaging/pfc-tools"


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """The module that starts programs, as if it were installed in `tmp_path`."""
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("pfc_tools.programs")
    (tmp_path / "pfc_tools").mkdir()
    monkeypatch.setattr(module, "HERE", tmp_path / "pfc_tools")
    return module


def install_torch(monkeypatch, folder, version):
    torch = folder / "torch"
    (torch / "lib").mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text(f"__version__ = '{version}'\n")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    return torch / "lib"


def refusal(programs, capsys):
    with pytest.raises(SystemExit) as ended:
        programs.torch_libraries()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_libtorch_is_taken_from_the_package_torch(programs, monkeypatch, tmp_path):
    lib = install_torch(monkeypatch, tmp_path, "2.11.0+cpu")
    assert programs.torch_libraries() == lib


def test_a_torch_of_another_version_is_refused_with_the_way_out(programs, monkeypatch, tmp_path, capsys):
    install_torch(monkeypatch, tmp_path, "2.12.1")
    said = refusal(programs, capsys)
    assert "torch is 2.12.1" in said and "pip install 'torch==2.11.*'" in said


def test_programs_with_cuda_refuse_a_torch_without(programs, monkeypatch, tmp_path, capsys):
    lib = install_torch(monkeypatch, tmp_path, "2.11.0+cpu")
    (tmp_path / "pfc_tools" / "needs-cuda").touch()
    assert "2.11.0+cpu is one without CUDA" in refusal(programs, capsys)
    (lib / "libtorch_cuda.so").touch()
    assert programs.torch_libraries() == lib


def test_onnxruntime_is_named_to_the_programs(programs, monkeypatch, tmp_path):
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").touch()
    (capi / "libonnxruntime.so.1.32.0").touch()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert programs.onnxruntime() == str(capi / "libonnxruntime.so.1.32.0")
