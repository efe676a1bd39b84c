//! Every case of `golden/ijb`, made by running insightface's `eval_ijbc.py` and `ijb_evals.py`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pfc_metrics::{
    Rows,
    ijb::{Faces, Gallery, Pooling, Probes, Search, Templates, pool, score_pairs, search},
    roc::Far,
    scores::{Curve, SortedScores},
};
use safetensors::SafeTensors;
use serde_json::Value;

/// Absolute: templates are kept in f32 here, in f64 there.
const SCORE_TOLERANCE: f64 = 1e-6;
/// Sums of exact shares in another order, and the decimal notation of the file.
const ROUNDING: f64 = 1e-12;
/// Pairs whose scores differ by less than an f32 step may change places: moves AUC by that share.
const AUC_TOLERANCE: f64 = 1e-7;

fn golden_cases() -> Vec<PathBuf> {
    let mut cases = pfc_testing::golden_cases("ijb", |path| path.join("expected.json").exists());
    let parts = ["features.safetensors", "templates.safetensors", "meta"];
    cases.retain(|case| parts.iter().all(|part| pfc_testing::is_known(&case.join(part))));
    cases
}

/// A case as plain columns; the test reads the files itself, to depend on no reader of the project.
struct Case {
    folder: PathBuf,
    /// Lower case, as in file names.
    target: String,
    expected: Value,
    dim: usize,
    original: Vec<f32>,
    mirrored: Vec<f32>,
    detector_score: Vec<f32>,
    template: Vec<u64>,
    media: Vec<u64>,
    pairs: Vec<[u64; 3]>,
}

impl Case {
    fn read(folder: &Path) -> Case {
        let expected: Value =
            serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let target = expected["target"].as_str().unwrap().to_lowercase();
        let bytes = std::fs::read(folder.join("features.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let meta = |name: &str| {
            std::fs::read_to_string(folder.join("meta").join(format!("{target}_{name}"))).unwrap()
        };
        let (faces, landmarks) = (meta("face_tid_mid.txt"), meta("name_5pts_score.txt"));
        let column = |i: usize| faces.lines().map(|l| field(l, i)).collect();
        Case {
            folder: folder.to_owned(),
            dim: tensors.tensor("embs").unwrap().shape()[1],
            original: f32s(&tensors, "embs"),
            mirrored: f32s(&tensors, "embs_f"),
            detector_score: landmarks
                .lines()
                .map(|l| l.split(' ').next_back().unwrap().parse().unwrap())
                .collect(),
            template: column(1),
            media: column(2),
            pairs: meta("template_pair_label.txt")
                .lines()
                .map(|l| [field(l, 0), field(l, 1), field(l, 2)])
                .collect(),
            target,
            expected,
        }
    }

    fn pool(&self, how: &Pooling, order: &[u32]) -> Templates {
        let faces = Faces {
            original: Rows::new(&self.original, self.dim).unwrap(),
            mirrored: Some(Rows::new(&self.mirrored, self.dim).unwrap()),
            detector_score: &self.detector_score,
            template: &self.template,
            media: &self.media,
            order,
        };
        pool(&faces, how).unwrap()
    }

    fn file_order(&self) -> Vec<u32> {
        (0..self.template.len() as u32).collect()
    }

    fn scores(&self, templates: &Templates) -> Vec<f64> {
        let row = |id| templates.row_of(id).unwrap();
        let pairs: Vec<(u32, u32)> = self.pairs.iter().map(|p| (row(p[0]), row(p[1]))).collect();
        score_pairs(templates.rows(), &pairs).unwrap()
    }

    fn same(&self) -> Vec<bool> {
        self.pairs.iter().map(|p| p[2] == 1).collect()
    }

    /// Template and subject of each line of a 1:N list, each template once.
    fn list(&self, name: &str) -> BTreeMap<u64, u64> {
        let path = self.folder.join("meta").join(format!("{}_1N_{name}.csv", self.target));
        let text = std::fs::read_to_string(path).unwrap();
        let fields = |line: &str| {
            let mut fields = line.split(',').map(|f| f.parse().unwrap_or(0));
            (fields.next().unwrap(), fields.next().unwrap())
        };
        text.lines().skip(1).map(fields).collect()
    }
}

fn field(line: &str, index: usize) -> u64 {
    line.split(' ').nth(index).unwrap().trim_end_matches(".jpg").parse().unwrap()
}

fn f32s(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let words = tensors.tensor(name).unwrap().data().as_chunks().0.to_vec();
    words.into_iter().map(f32::from_le_bytes).collect()
}

/// The numbers of an `.npy` file of f32 or f64, row by row.
fn npy(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (text, body) = bytes[10..].split_at(header);
    if String::from_utf8_lossy(text).contains("'<f4'") {
        let words = body.as_chunks().0.to_vec();
        return words.into_iter().map(|word| f64::from(f32::from_le_bytes(word))).collect();
    }
    let words = body.as_chunks().0.to_vec();
    words.into_iter().map(f64::from_le_bytes).collect()
}

fn pooling_of(expected: &Value) -> Pooling {
    let flag = |name: &str| expected[name].as_bool().unwrap();
    Pooling {
        flip: flag("flip"),
        unit_norm_faces: flag("unit_norm_faces"),
        detector_score: flag("detector_score"),
        unit_norm_media: false,
    }
}

#[track_caller]
fn check_near(ours: f64, theirs: &Value, tolerance: f64, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours} is not {theirs}");
}

fn check_scores(ours: &[f64], theirs: &[f64], what: &str) {
    assert!(ours.len() >= theirs.len());
    for (place, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() < SCORE_TOLERANCE, "{what}, pair {place}: {ours} {theirs}");
    }
}

/// The 1:1 table of one combination of flags; returns how many TARs differ, all within one pair.
fn check_table(expected: &Value, scores: &[f64], same: &[bool], what: &str) -> usize {
    let sorted = SortedScores::new(scores, same).unwrap();
    let one_pair = 1.0 / sorted.genuine().len() as f64 + ROUNDING;
    check_near(sorted.auc(), &expected["auc"], AUC_TOLERANCE, what);
    let rows = expected["nearest"].as_array().unwrap();
    let targets: Vec<f64> = rows.iter().map(|row| row["target"].as_f64().unwrap()).collect();
    let decimated = sorted.nearest(&targets, Curve::Decimated);
    let full = sorted.nearest(&targets, Curve::Full);
    let mut different = 0;
    for (i, &target) in targets.iter().enumerate() {
        let what = format!("{what} at {target:e}");
        let strict = sorted.at_most(Far::new(target).unwrap());
        let strict_row = &expected["far_at_most"][i];
        assert_eq!(strict_row["target"].as_f64(), Some(target));
        assert_eq!(strict_row["false_accepts_allowed"].as_u64(), Some(strict.allowed), "{what}");
        check_near(strict.threshold, &strict_row["threshold"], SCORE_TOLERANCE, &what);
        let theirs = [
            (decimated[i].tar, &rows[i]["tpr"]),
            (full[i].tar, &expected["nearest_on_undecimated_curve"][i]),
            (strict.tar, &strict_row["tpr"]),
        ];
        for (ours, theirs) in theirs {
            check_near(ours, theirs, one_pair, &what);
            different += usize::from((ours - theirs.as_f64().unwrap()).abs() > ROUNDING);
        }
    }
    different
}

#[test]
fn golden_ijb_one_to_one_tables_are_met_for_all_flags() {
    for folder in golden_cases() {
        let case = Case::read(&folder);
        let first_scores = npy(&case.folder.join("scores_first10000_8combos.npy"));
        let combinations = case.expected["one_to_one"].as_array().unwrap();
        let per_row = first_scores.len() / combinations.len();
        let mut different = 0;
        for (i, expected) in combinations.iter().enumerate() {
            let what = format!("{} combination {i}", case.target);
            let templates = case.pool(&pooling_of(expected), &case.file_order());
            let scores = case.scores(&templates);
            check_scores(&scores, &first_scores[i * per_row..(i + 1) * per_row], &what);
            different += check_table(expected, &scores, &case.same(), &what);
        }
        println!(
            "{}: {different} of {} TARs off by one pair",
            case.target,
            18 * combinations.len()
        );
    }
}

#[test]
fn golden_ijb_templates_and_scores_of_the_default_are_met() {
    for folder in golden_cases() {
        let case = Case::read(&folder);
        let templates = case.pool(&Pooling::default(), &case.file_order());
        let bytes = std::fs::read(folder.join("templates.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let words = tensors.tensor("template_id").unwrap().data().as_chunks().0.to_vec();
        let ids: Vec<u64> = words.into_iter().map(u64::from_le_bytes).collect();
        assert_eq!(templates.ids, ids);
        for (ours, theirs) in templates.features.iter().zip(f32s(&tensors, "template_feature")) {
            assert!((ours - theirs).abs() < 1e-6, "{}: {ours} {theirs}", case.target);
        }
        let theirs = npy(&folder.join(format!("scores_{}.npy", case.target)));
        assert_eq!(theirs.len(), case.pairs.len());
        check_scores(&case.scores(&templates), &theirs, &case.target);
    }
}

fn check_gallery(search: &Search, expected: &Value, n_probes: usize, what: &str) {
    let count = |name: &str| expected[name].as_u64().unwrap() as usize;
    assert_eq!(n_probes, count("probes"), "{what}");
    assert_eq!(search.mated.len(), count("mated"), "{what}");
    assert_eq!(search.non_mated.len(), count("non_mated"), "{what}");
    for k in [1, 5, 10] {
        assert_eq!(search.hits(k), count(&format!("hits_top{k}")), "{what}: rank {k}");
    }
    let one_probe = 1.0 / search.mated.len() as f64 + ROUNDING;
    for (fpir, theirs) in expected["tpir"].as_object().unwrap() {
        let what = format!("{what} at FPIR {fpir}");
        let ours = search.tpir(&[fpir.parse().unwrap()]).unwrap()[0];
        check_near(ours.tpir, theirs, one_probe, &what);
        check_near(ours.threshold, &expected["threshold"][fpir], SCORE_TOLERANCE, &what);
    }
}

#[test]
fn golden_ijb_searches_are_met() {
    for folder in golden_cases() {
        let case = Case::read(&folder);
        let templates = case.pool(&Pooling::default(), &case.file_order());
        let probes = case.list("probe_mixed");
        let expected = &case.expected["one_to_n"];
        let side = |list: &BTreeMap<u64, u64>| -> (Vec<u32>, Vec<u64>) {
            list.iter().map(|(&id, &subject)| (templates.row_of(id).unwrap(), subject)).unzip()
        };
        let (probe_rows, probe_subjects) = side(&probes);
        let probe_side = Probes { rows: &probe_rows, subjects: &probe_subjects };
        let names = if case.target == "ijbb" { ["S1", "S2"] } else { ["G1", "G2"] };
        let curve = &expected["curve"];
        let fpirs: Vec<f64> =
            curve["fpir"].as_array().unwrap().iter().map(|f| f.as_f64().unwrap()).collect();
        let mut hits = [0; 3];
        for (i, name) in names.iter().enumerate() {
            let what = format!("{} {name}", case.target);
            let (rows, subjects) = side(&case.list(&format!("gallery_{name}")));
            let theirs = &expected["galleries"][i];
            assert_eq!(theirs["gallery_templates"].as_u64(), Some(rows.len() as u64));
            let gallery = Gallery { rows: &rows, subjects: &subjects };
            let found = search(templates.rows(), gallery, probe_side).unwrap();
            check_gallery(&found, theirs, probe_rows.len(), &what);
            let one_probe = 1.0 / found.mated.len() as f64 + ROUNDING;
            let theirs = curve[format!("tpir_gallery{}", i + 1)].as_array().unwrap();
            for (ours, theirs) in found.tpir(&fpirs).unwrap().iter().zip(theirs) {
                check_near(ours.tpir, theirs, one_probe, &what);
            }
            for (sum, k) in hits.iter_mut().zip([1, 5, 10]) {
                *sum += found.hits(k);
            }
        }
        for (sum, name) in hits.iter().zip(["top1", "top5", "top10"]) {
            check_near(*sum as f64 / probe_rows.len() as f64, &expected[name], ROUNDING, name);
        }
    }
}

#[test]
fn golden_ijb_scores_do_not_depend_on_row_order_or_threads() {
    for folder in golden_cases() {
        let case = Case::read(&folder);
        let run = |case: &Case, order: &[u32], n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| case.scores(&case.pool(&Pooling::default(), order)))
        };
        let plain = run(&case, &case.file_order(), 1);

        // Row r of the shuffled case is row (r * 7 + 3) mod F of the file; 7 must not divide F.
        let n = case.template.len();
        let step = [7, 11, 13].into_iter().find(|s| !n.is_multiple_of(*s)).unwrap();
        let from = |r: usize| (r * step + 3) % n;
        let mut shuffled = Case::read(&folder);
        for r in 0..n {
            let row = |data: &[f32]| data[from(r) * case.dim..(from(r) + 1) * case.dim].to_vec();
            let here = r * case.dim..(r + 1) * case.dim;
            shuffled.original[here.clone()].copy_from_slice(&row(&case.original));
            shuffled.mirrored[here].copy_from_slice(&row(&case.mirrored));
            shuffled.detector_score[r] = case.detector_score[from(r)];
            shuffled.template[r] = case.template[from(r)];
            shuffled.media[r] = case.media[from(r)];
        }
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by_key(|&r| from(r as usize));
        let other = run(&shuffled, &order, 3);
        assert!(plain.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
