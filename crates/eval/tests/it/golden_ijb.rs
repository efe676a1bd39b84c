//! Every case of `golden/ijb`, from its folder to the report, as a user runs it.

use std::path::{Path, PathBuf};

use pfc_embeddings::FeatureFile;
use pfc_eval::ijb::{Benchmark, Embedded, IjbSet, Judged, Options, judge};
use pfc_metrics::{bootstrap::Bootstrap, ijb::Pooling};
use serde_json::Value;

const ROUNDING: f64 = 1e-12;

fn golden_cases() -> Vec<(PathBuf, Benchmark, Value)> {
    let mut folders = pfc_testing::golden_cases("ijb", |path| path.join("expected.json").exists());
    let parts = ["features.safetensors", "meta"];
    folders.retain(|case| parts.iter().all(|part| pfc_testing::is_known(&case.join(part))));
    folders.into_iter().map(case).collect()
}

fn case(folder: PathBuf) -> (PathBuf, Benchmark, Value) {
    let json = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    let benchmark = match expected["target"].as_str().unwrap() {
        "IJBB" => Benchmark::IjbB,
        _ => Benchmark::IjbC,
    };
    (folder, benchmark, expected)
}

fn run(folder: &Path, benchmark: Benchmark, options: &Options) -> Judged {
    let set = IjbSet::open(folder, benchmark).unwrap();
    let file = FeatureFile::open(&folder.join("features.safetensors")).unwrap();
    let embedded = Embedded {
        original: file.rows(&["embs"]).unwrap(),
        mirrored: file.optional_rows("embs_f").unwrap(),
    };
    judge(&set, &embedded, options).unwrap()
}

fn pooling(expected: &Value) -> Pooling {
    let flag = |name: &str| expected[name].as_bool().unwrap();
    Pooling {
        flip: flag("flip"),
        unit_norm_faces: flag("unit_norm_faces"),
        detector_score: flag("detector_score"),
        unit_norm_media: false,
    }
}

#[test]
fn golden_ijb_folders_give_the_printed_tables_of_the_reference() {
    for (folder, benchmark, expected) in golden_cases() {
        let combinations = expected["one_to_one"].as_array().unwrap();
        let options =
            Options { poolings: combinations.iter().map(pooling).collect(), ..Options::default() };
        let report = run(&folder, benchmark, &options).report;
        let count = |name: &str| expected[name].as_u64().unwrap() as usize;
        assert_eq!(report.n_faces, count("faces"));
        assert_eq!(report.n_templates, count("templates"));
        assert_eq!(report.n_genuine, count("genuine"));
        assert_eq!(report.n_impostor, count("impostor"));
        // One genuine pair more or less is two units of the last printed digit or more.
        let one_pair = 100.0 / report.n_genuine as f64 + 0.01;
        for (table, expected) in report.one_to_one.iter().zip(combinations) {
            let printed = expected["table_percent"].as_array().unwrap();
            assert_eq!(table.rows.len(), printed.len());
            for (row, printed) in table.rows.iter().zip(printed) {
                let printed: f64 = printed.as_str().unwrap().parse().unwrap();
                let gap = (100.0 * row.nearest_tar - printed).abs();
                assert!(gap < one_pair, "{}: {row:?} {printed}", folder.display());
            }
        }
    }
}

#[test]
fn golden_ijb_folders_give_the_search_figures_of_the_reference() {
    for (folder, benchmark, expected) in golden_cases() {
        let report = run(&folder, benchmark, &Options::default()).report;
        let expected = &expected["one_to_n"];
        let search = report.one_to_n.unwrap();
        for (ours, name) in search.top.iter().zip(["top1", "top5", "top10"]) {
            assert!((ours - expected[name].as_f64().unwrap()).abs() < ROUNDING, "{name}");
        }
        for (gallery, theirs) in
            search.galleries.iter().zip(expected["galleries"].as_array().unwrap())
        {
            for (rank, name) in gallery.rank.iter().zip(["rank1", "rank5", "rank10"]) {
                let gap = rank.unwrap().value - theirs[name].as_f64().unwrap();
                assert!(gap.abs() < ROUNDING, "{}: {name}", gallery.name);
            }
            let one_probe = 1.0 / gallery.n_mated as f64 + ROUNDING;
            for row in &gallery.tpir {
                let key = if row.fpir == 1.0 { "1.0".to_owned() } else { row.fpir.to_string() };
                let theirs = theirs["tpir"][&key].as_f64().unwrap();
                assert!((row.reference_tpir - theirs).abs() < one_probe, "{row:?} {theirs}");
            }
        }
        for (fpir, mean) in search.mean_tpir {
            let key = if fpir == 1.0 { "1.0".to_owned() } else { fpir.to_string() };
            let theirs = expected["mean_tpir"][&key].as_f64().unwrap();
            assert!((mean - theirs).abs() < 0.01, "{fpir}: {mean} {theirs}");
        }
    }
}

/// Copies a case with its faces, pairs and lists in another order.
fn shuffled(folder: &Path, prefix: &str, to: &Path) {
    let turn = |text: &str, skip: usize| -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        lines[skip..].reverse();
        lines.join("\n")
    };
    std::fs::create_dir(to.join("meta")).unwrap();
    for entry in std::fs::read_dir(folder.join("meta")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let header = usize::from(path.extension().unwrap() == "csv");
        let name = path.file_name().unwrap();
        assert!(name.to_str().unwrap().starts_with(prefix));
        std::fs::write(to.join("meta").join(name), turn(&text, header)).unwrap();
    }
    let file = FeatureFile::open(&folder.join("features.safetensors")).unwrap();
    let reversed = |name: &str| -> (usize, Vec<f32>) {
        let rows = file.rows(&[name]).unwrap();
        let values = (0..rows.len()).rev().flat_map(|i| rows.row(i)).copied().collect();
        (rows.dim(), values)
    };
    let ((dim, original), (_, mirrored)) = (reversed("embs"), reversed("embs_f"));
    let shape = [original.len() / dim, dim];
    let arrays = [("embs", shape, &original[..]), ("embs_f", shape, &mirrored[..])];
    pfc_embeddings::write::safetensors(&to.join("features.safetensors"), &arrays).unwrap();
}

#[test]
fn golden_ijb_reports_do_not_depend_on_order_or_threads() {
    for (folder, benchmark, _) in golden_cases() {
        let options = Options {
            bootstrap: Bootstrap { n_replicates: 20, ..Bootstrap::default() },
            ..Options::default()
        };
        let with_threads = |folder: &Path, n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| run(folder, benchmark, &options))
        };
        let one = with_threads(&folder, 1);
        let two = with_threads(&folder, 2);
        assert_eq!(one.report, two.report);
        assert_eq!(one.scores, two.scores);
        let other = tempfile::tempdir().unwrap();
        shuffled(&folder, benchmark.prefix(), other.path());
        let turned = with_threads(other.path(), 2);
        assert_eq!(one.report, turned.report);
        assert!(turned.scores.iter().rev().eq(one.scores.iter()));
    }
}

#[test]
fn golden_ijb_intervals_hold_their_figures() {
    for (folder, benchmark, _) in golden_cases() {
        let bootstrap = Bootstrap { n_replicates: 100, ..Bootstrap::default() };
        let report = run(&folder, benchmark, &Options { bootstrap, ..Options::default() }).report;
        for row in &report.one_to_one[0].rows {
            let interval = row.interval.unwrap();
            let holds = interval.low <= row.tar && row.tar <= interval.high;
            // Resampling repeats people, which moves a FAR that is finer than the data.
            assert!(holds || row.n_impostors_allowed < 10, "{row:?}");
            assert!(interval.high - interval.low < 0.6, "{row:?}");
        }
        for gallery in report.one_to_n.unwrap().galleries {
            for rank in gallery.rank.into_iter().flatten() {
                let interval = rank.interval.unwrap();
                assert!(interval.low <= rank.value && rank.value <= interval.high, "{rank:?}");
            }
        }
    }
}
