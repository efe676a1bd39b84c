//! The whole line in one process: make faces, pack, train, evaluate.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use clap::Parser;
use pfc_cli::Outcome;

fn ingest(args: &[&str]) -> Outcome {
    let line = ["pfc-ingest", "--quiet"].iter().chain(args);
    pfc_ingest::run(pfc_ingest::Cli::parse_from(line)).expect("the inputs are sound")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Records of one kind in a run's metrics, in order.
fn records(run: &Path, kind: &str) -> Vec<serde_json::Value> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let all = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    all.filter(|record: &serde_json::Value| record["kind"] == kind).collect()
}

#[test]
fn a_network_trained_on_synthetic_faces_tells_unseen_people_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (faces, shards, run) = (at("faces"), at("shards"), at("run"));

    let made = ["--identities", "40", "--images-per-identity", "12", "--seed", "1"];
    let held_out = ["--holdout", "20", "--pairs", "200"];
    ingest(&[&["synth", text(&faces)], &made[..], &held_out[..]].concat());
    ingest(&["pack", text(&faces.join("train")), text(&shards)]);
    assert_eq!(ingest(&["verify", text(&shards)]), Outcome::Clean);

    let config = at("tiny.toml");
    let sets = format!(
        "[{{ name = 'held out', data = '{0}/test', pairs = '{0}/pairs.txt' }}]",
        text(&faces)
    );
    let toml = format!(
        "data.path = '{}'\nmodel = {{ network = 'r10_w8', embedding = 32 }}\n\
         head.margin = {{ loss = 'cosface', m = 0.2 }}\nhead.scale = 32\nhead.sample_rate = 0.5\n\
         optim = {{ lr = 0.1, weight_decay = 5e-4, clip_norm = 5.0, warmup_epochs = 1 }}\n\
         train = {{ batch_size = 32, epochs = 4 }}\neval.sets = {sets}\n",
        text(&shards)
    );
    std::fs::write(&config, toml).unwrap();
    let line = ["pfc-train", "--quiet", "run", text(&config), "--out", text(&run)];
    pfc_train::run(pfc_train::Cli::parse_from(line)).unwrap();

    let losses: Vec<f64> =
        records(&run, "epoch").iter().map(|r| r["mean_loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 4);
    assert!(losses[3] < losses[0], "{losses:?}");
    let scores: Vec<f64> =
        records(&run, "eval").iter().map(|r| r["accuracy"].as_f64().unwrap()).collect();
    let (untrained, trained) = (scores[0], scores[scores.len() - 1]);
    assert!(trained > untrained + 0.03 && trained > 0.6, "{scores:?}");

    let (test, pairs) = (faces.join("test"), faces.join("pairs.txt"));
    let model = run.join("last.ckpt");
    let line =
        ["pfc-eval", "--quiet", "lfw", "--model", text(&model), "--data", text(&test), "--pairs"];
    let line = [&line[..], &[text(&pairs), "--json", "--bootstrap", "0"]].concat();
    assert_eq!(pfc_eval::run(pfc_eval::Cli::parse_from(line)).unwrap(), Outcome::Clean);
}
