"""The card of card.h: its kernels built for the CPU, and launched from Python. Standard library only."""

import ctypes
import os
import pathlib
import re
import shlex
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KERNELS = ROOT / "crates" / "head" / "src" / "centres" / "device" / "kernels.cu"
SHARED = "extern __shared__ float shared[];"
COMPILER = shlex.split(os.environ.get("CXX", "c++"))
# Name of a sanitizer, and of its library that a program loads first which was not built with it.
SANITIZERS = {"thread": "libtsan.so", "address": "libasan.so"}


def build(folder, sanitizer=None, change=lambda source: source):
    """The kernels as a library in `folder`, which also is a driver, `libcuda.so.1`, for the program.

    `change` makes of the kernels' source what is compiled.
    """
    source = change(KERNELS.read_text())
    assert SHARED in source, "the kernels ask for shared memory in another way than this knows"
    source = source.replace(SHARED, "#define shared card::shared_floats()")
    folder = pathlib.Path(folder)
    path = folder / "kernels.cpp"
    path.write_text(f'#include "{HERE / "card.h"}"\n#line 1 "kernels.cu"\n{source}')
    expanded = subprocess.run([*COMPILER, "-E", "-std=c++20", path], check=True, capture_output=True, text=True).stdout
    # Of what the headers before it declare, nothing is meant.
    expanded = expanded[expanded.index('"kernels.cu"') :]
    names = re.findall(r'extern "C"\s+void (\w+)\(', expanded)
    with path.open("a") as file:
        file.write("\n".join(["", *(f"CARD_KERNEL({name})" for name in names), f'#include "{HERE / "driver.cpp"}"', ""]))
    library = folder / "libcuda.so.1"
    flags = ["-O1", "-g1", "-std=c++20", "-shared", "-fPIC", "-pthread", "-w"]
    if sanitizer:
        flags += [f"-fsanitize={sanitizer}"]
    subprocess.run([*COMPILER, *flags, path, "-o", library], check=True)
    return library


def sanitizer_library(sanitizer):
    """Where the compiler has the library of a sanitizer; None where it has none."""
    name = SANITIZERS[sanitizer]
    found = subprocess.run([*COMPILER, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if os.path.isabs(found) and os.path.exists(found) else None


class Card:
    """The kernels of one library."""

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))

    def launch(self, name, grid, n_threads, shared_bytes, *arguments):
        """`arguments`: arrays, None for no array, and numbers of ctypes."""
        values = [a if isinstance(a, ctypes._SimpleCData) else pointer(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        code = self.library.card_launch(name.encode(), *grid, n_threads, shared_bytes, pointers)
        assert code == 0, f"{name}: {'a card refuses this launch' if code == 1 else 'there is no such kernel'}"


def pointer(array):
    return ctypes.c_void_p(None if array is None else array.ctypes.data)
