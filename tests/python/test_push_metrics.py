"""scripts/push-metrics, against stand-ins for MLflow and trackio, and against the real ones where they are installed."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts/push-metrics"

#: What the script uses of mlflow and of trackio; every call is a line of the file that CALLS names.
STAND_INS = {
    "mlflow": """
        import contextlib, json, os, types

        def note(*call):
            with open(os.environ["CALLS"], "a") as file:
                file.write(json.dumps(call) + "\\n")

        def set_tracking_uri(uri): note("uri", uri)
        def set_experiment(name): note("experiment", name)
        def log_params(params): note("params", params)

        def log_metrics(metrics, step):
            if os.path.exists(os.environ["CALLS"] + ".down"):
                raise ConnectionError("the server is down")
            note("metrics", step, metrics)

        @contextlib.contextmanager
        def start_run(run_id, run_name):
            note("run", run_id, run_name)
            yield types.SimpleNamespace(info=types.SimpleNamespace(run_id="id-1"))
    """,
    "trackio": """
        import json, os

        def note(*call):
            with open(os.environ["CALLS"], "a") as file:
                file.write(json.dumps(call) + "\\n")

        def init(project, name, config, resume): note("init", project, name, config, resume)
        def log(metrics, step): note("metrics", step, metrics)
        def finish(): note("finish")
    """,
}

TRAIN = {"kind": "train", "step": 10, "epoch": 0.5, "loss": 2.5, "lr": 0.1, "grad_norm": None}
EVAL = {"kind": "eval", "step": 10, "epoch": 0.5, "set": "lfw", "accuracy": 0.75}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[optim]\nlr = 0.1\nmilestones = [1, 2]\n[head]\nmargin = { loss = "cosface" }\n')
    write(folder, TRAIN, EVAL)
    for name, code in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
    return folder


def write(folder, *records, rest=""):
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines) + rest)


def push(folder, *options):
    """What one look sends, a list of calls, and how the script ends."""
    place = folder.parents[1]
    calls = place / "calls"
    calls.write_text("")
    environment = {**os.environ, "PYTHONPATH": str(place), "CALLS": str(calls)}
    command = [sys.executable, SCRIPT, folder, "--once", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return [json.loads(line) for line in calls.read_text().splitlines()], done


def test_figures_go_to_mlflow_once_each(run):
    calls, _ = push(run, "--to", "mlflow", "--server", "http://localhost:1", "--project", "faces")
    config = {"optim.lr": 0.1, "optim.milestones": "[1, 2]", "head.margin": '{"loss": "cosface"}'}
    assert calls == [
        ["uri", "http://localhost:1"],
        ["experiment", "faces"],
        ["run", None, "a"],
        ["params", config],
        ["metrics", 10, {"train/loss": 2.5, "train/lr": 0.1, "train/epoch": 0.5}],
        ["metrics", 10, {"eval/lfw/accuracy": 0.75, "eval/lfw/epoch": 0.5}],
    ]
    # Nothing new, then one more line, and a line that is still being written.
    assert push(run, "--to", "mlflow")[0] == [["experiment", "pfc"]]
    write(run, TRAIN, EVAL, {**TRAIN, "step": 20}, rest='{"kind": "tra')
    calls, _ = push(run, "--to", "mlflow")
    assert calls[1] == ["run", "id-1", None]
    assert [call[1] for call in calls if call[0] == "metrics"] == [20]


def test_a_resumed_run_sends_no_step_twice(run):
    push(run, "--to", "trackio")
    # Resumed from step 5: the line of step 10 is written again, and goes on.
    write(run, {**TRAIN, "step": 10, "loss": 2.25}, {**TRAIN, "step": 20}, EVAL)
    calls, _ = push(run, "--to", "trackio")
    assert calls[0][:3] == ["init", "pfc", "a"] and calls[0][4] == "allow"
    assert [call[1] for call in calls if call[0] == "metrics"] == [20]


def test_what_a_server_did_not_take_is_sent_later(run):
    down = run.parents[1] / "calls.down"
    down.write_text("")
    calls, done = push(run, "--to", "mlflow")
    assert done.returncode != 0 and "the server is down" in done.stderr
    assert not [call for call in calls if call[0] == "metrics"]
    down.unlink()
    calls, done = push(run, "--to", "mlflow")
    assert done.returncode == 0 and ["run", "id-1", None] in calls
    assert [call[1] for call in calls if call[0] == "metrics"] == [10, 10]


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    calls, done = push(run.parent, "--to", "mlflow")
    assert not calls and done.returncode == 1
    assert "is no folder of a run" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_itself_has_the_figures(run, tmp_path):
    import mlflow

    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, SCRIPT, run, "--to", "mlflow", "--server", store, "--once"]
    subprocess.run(command, check=True, capture_output=True)
    client = mlflow.MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("pfc").experiment_id])
    assert runs[0].data.metrics["train/loss"] == 2.5 and runs[0].data.params["optim.lr"] == "0.1"
