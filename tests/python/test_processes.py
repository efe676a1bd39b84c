"""Ctrl-C, threads, forks, and what does not cross into Python."""

import os
import pathlib
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pfc
import pytest


def run(code, *arguments, **options):
    """Runs Python code in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, pfc
{prepare}
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
timer = threading.Timer(0.3, interrupt)
timer.start()
begin = time.perf_counter()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted after", round(time.perf_counter() - begin, 1), "s")
"""

LONG_CALLS = {
    "nn": (
        "rows = np.random.default_rng(1).normal(size=(60_000, 64)); labels = np.arange(60_000) // 2",
        "pfc.nn(rows, labels)",
    ),
    "verification": (
        "rows = np.random.default_rng(1).normal(size=(6000, 16)); same = np.arange(6000) % 2 == 0",
        "pfc.verification(rows, rows[::-1], same, bootstrap=1_000_000)",
    ),
    "ijb": (
        "r = np.random.default_rng(1); rows = r.normal(size=(2000, 8)); ids = np.arange(2000)\n"
        "pairs = r.integers(0, 2000, (200_000, 2)); same = np.arange(200_000) % 9 == 0",
        "pfc.ijb(rows, ids, ids, pairs, same, bootstrap=1_000_000)",
    ),
    "batch": (
        "ds = pfc.Dataset(sys.argv[1]); out = np.empty((6_000, 112, 112, 3), np.uint8)",
        "while True: ds.batch(np.arange(6_000) % 42, out)",
    ),
    "batches": (
        "ds = pfc.Dataset(sys.argv[1], threads=1); epochs = iter(range(10**9))",
        "while True: sum(1 for _ in ds.batches(42, seed=1, epoch=next(epochs)))",
    ),
}


@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_ends_a_long_call(name, packed):
    prepare, call = LONG_CALLS[name]
    done = run(INTERRUPTED.format(prepare=prepare, call=call), packed)
    assert done.returncode == 0 and done.stdout.startswith("interrupted after"), done.stderr


def test_other_threads_run_meanwhile(packed):
    """The interpreter's lock is free while images are decoded: another thread counts on."""
    ds = pfc.Dataset(packed)
    out = np.empty((2000, 112, 112, 3), np.uint8)
    is_over = threading.Event()
    counts = [0]

    def count():
        while not is_over.is_set():
            counts[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    while counts[0] < 3:
        time.sleep(0.001)
    before = counts[0]
    ds.batch(np.arange(2000) % 42, out)
    during = counts[0] - before
    is_over.set()
    counter.join()
    # With the lock held it would be 2 or 3: one before the call, one after, one between two pieces.
    assert during > 10


def test_one_data_set_is_read_by_many_threads(packed):
    ds = pfc.Dataset(packed)
    expected = ds.batch(range(42))
    wrong = []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 42, 50):
            if not np.array_equal(ds[i][0], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_threads_share_the_batches_of_one_iterator(packed):
    ds = pfc.Dataset(packed)
    batches, taken, lock = ds.batches(2, seed=3), [], threading.Lock()

    def take():
        while (batch := next(batches, None)) is not None:
            with lock:
                taken.append(tuple(batch[1].tolist()))

    threads = [threading.Thread(target=take) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    expected = [tuple(labels.tolist()) for _, labels in ds.batches(2, seed=3)]
    assert sorted(taken) == sorted(expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_reads_with_threads_of_its_own(packed):
    code = """
        import os, sys, warnings, pfc
        warnings.simplefilter("ignore")
        ds = pfc.Dataset(sys.argv[1], threads=2)
        expected = ds.batch(range(42)).sum(), ds.labels.sum()
        batches = ds.batches(3, seed=1)
        next(batches)
        pid = os.fork()
        if pid == 0:
            found = ds.batch(range(42)).sum(), pfc.Dataset(sys.argv[1]).labels.sum()
            try:
                next(batches)
                os._exit(3)
            except pfc.PfcError as error:
                assert "forked" in str(error)
            n = sum(1 for _ in ds.batches(3, seed=1))
            del batches
            os._exit(0 if found == expected and n == 14 else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(1 + sum(1 for _ in batches))
    """
    done = run(code, packed)
    assert (done.returncode, done.stdout) == (0, "14\n"), done.stderr


def test_an_interpreter_ends_while_batches_are_made(packed):
    code = """
        import sys, pfc
        batches = pfc.Dataset(sys.argv[1]).batches(1, seed=1, ahead=2)
        print(next(batches)[1].shape)
    """
    done = run(code, packed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1,)\n", "")


def test_importing_loads_neither_torch_nor_onnxruntime():
    code = "import sys, pfc; print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def needed(path):
    """The libraries that the dynamic loader is asked for, from the ELF file's dynamic section."""
    elf = path.read_bytes()
    (sections,) = struct.unpack_from("<Q", elf, 0x28)
    size, n = struct.unpack_from("<HH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, sections + i * size) for i in range(n)]
    for _, kind, _, _, offset, length, link, *_ in headers:
        if kind == 6:  # SHT_DYNAMIC, whose texts are in the section that it links to
            texts = headers[link][4]
            for tag, value in struct.iter_unpack("<QQ", elf[offset : offset + length]):
                if tag == 1:  # DT_NEEDED
                    end = elf.index(b"\0", texts + value)
                    yield elf[texts + value : end].decode()


def test_the_module_links_nothing_but_the_system():
    libraries = set(needed(pathlib.Path(pfc._pfc.__file__)))
    system = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2"}
    assert "libc.so.6" in libraries and libraries <= system | {"ld-linux-x86-64.so.2"}


def test_sigint_handlers_of_others_are_obeyed(packed):
    code = """
        import os, signal, sys, threading
        import numpy as np, pfc
        class Stop(Exception): pass
        def handler(*_): raise Stop("mine")
        signal.signal(signal.SIGUSR1, handler)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        rows = np.random.default_rng(1).normal(size=(60_000, 64))
        try: pfc.nn(rows, np.arange(60_000) // 2)
        except Stop as stop: print(stop)
    """
    assert signal.SIGUSR1 and run(code).stdout == "mine\n"
