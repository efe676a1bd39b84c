//! The devkit folder of `golden/megaface`, from its files to the report.

use std::path::{Path, PathBuf};

use pfc_eval::megaface::{
    Gallery, MegaFaceReport, MegaFaceSet, Noises, Options, ProbeList, Store, judge, read_noises,
};
use pfc_metrics::{bootstrap::Bootstrap, roc::Far};
use safetensors::SafeTensors;
use serde_json::Value;

/// Noise of ±0.001 on noisy probes is drawn anew, so their pairs may change places.
const NOISY_SHARE: f64 = 0.01;

/// The folder of the case, if it is whole.
fn folder() -> Option<PathBuf> {
    let folder = pfc_testing::golden("megaface")?;
    let parts =
        ["expected.json", "feature_out", "feature_out_clean.safetensors", "templatelists", "data"];
    parts.iter().all(|part| pfc_testing::is_known(&folder.join(part))).then_some(folder)
}

fn expected(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}

fn set(folder: &Path, noises: Option<Noises>) -> MegaFaceSet {
    let suffix = format!("_{}.bin", expected(folder)["algo"].as_str().unwrap());
    let store =
        |name| Store { root: folder.join("feature_out").join(name), suffix: suffix.clone() };
    let lists = folder.join("templatelists");
    let galleries = Gallery::find(&lists).unwrap();
    MegaFaceSet {
        probes: ProbeList::read(&lists.join("facescrub_features_list.json")).unwrap(),
        probe_store: store("facescrub"),
        distractor_store: store("megaface"),
        galleries: galleries.iter().map(|file| Gallery::read(file).unwrap()).collect(),
        noises,
    }
}

fn noises(folder: &Path) -> Noises {
    Noises {
        probes: read_noises(&folder.join("data/facescrub_noises.txt")).unwrap(),
        distractors: read_noises(&folder.join("data/megaface_noises.txt")).unwrap(),
    }
}

fn options() -> Options {
    let fars = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2].map(|far| Far::new(far).unwrap());
    let bootstrap = Bootstrap { n_replicates: 20, ..Bootstrap::default() };
    Options { fars: fars.to_vec(), n_ranks: 10, bootstrap }
}

fn check(report: &MegaFaceReport, folder: &Path, state: &str, tolerance: f64) {
    let expected = expected(folder);
    let results = expected["results"].as_object().unwrap();
    let n_of_state = results.keys().filter(|name| name.starts_with(state)).count();
    assert_eq!(report.galleries.len(), n_of_state);
    for gallery in &report.galleries {
        let theirs = &results[&format!("{state}_{}", gallery.n_distractors)];
        assert_eq!(Some(report.n_pairs as u64), theirs["pairs"].as_u64());
        assert_eq!(Some(gallery.n_negatives), theirs["negatives"].as_u64());
        let near = |ours: f64, theirs: &Value, what: &str| {
            let gap = (ours - theirs.as_f64().unwrap()).abs();
            assert!(gap <= tolerance, "{state} {} {what}: {ours} {theirs}", gallery.name);
        };
        for (ours, theirs) in gallery.cmc.iter().zip(theirs["cmc"].as_array().unwrap()) {
            near(*ours, theirs, "cmc");
        }
        for (ours, theirs) in
            gallery.tar_at_far.iter().zip(theirs["tar_at_far"].as_array().unwrap())
        {
            assert_eq!(Some(ours.far), theirs["far"].as_f64());
            near(ours.tar.value, &theirs["tar"], "tar");
            assert_eq!(ours.finer_than_data, theirs["false_accepts_allowed"] == 0);
        }
    }
}

#[test]
fn golden_megaface_devkit_files_give_the_expected_figures() {
    let Some(folder) = folder() else { return };
    let report = judge(&set(&folder, None), &options(), |_| Ok(())).unwrap();
    check(&report, &folder, "raw", 1e-12);
    assert_eq!(report.incomplete.len(), 3, "made-up data is not the complete benchmark");
}

#[test]
fn golden_megaface_cleaning_gives_the_expected_figures() {
    let Some(folder) = folder() else { return };
    let report = judge(&set(&folder, Some(noises(&folder))), &options(), |_| Ok(())).unwrap();
    check(&report, &folder, "clean", NOISY_SHARE);
}

#[test]
fn golden_megaface_cleaned_features_are_those_of_the_reference() {
    let Some(folder) = folder() else { return };
    let (set, noises) = (set(&folder, None), noises(&folder));
    let bytes = std::fs::read(folder.join("feature_out_clean.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let theirs = |name| -> Vec<f32> {
        let words = tensors.tensor(name).unwrap().data().as_chunks().0.to_vec();
        words.into_iter().map(f32::from_le_bytes).collect()
    };
    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(folder.join("data").join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let distractors = lines("megaface_lst");
    let (values, dim) = set.distractor_store.read(&distractors, None).unwrap();
    assert_eq!(noises.clean_distractors(&distractors, &values, dim), theirs("megaface"));
    assert_eq!(lines("facescrub_lst"), set.probes.paths);
    let (values, dim) = set.probe_store.read(&set.probes.paths, None).unwrap();
    let cleaned = noises.clean_probes(&set.probes, &values, dim);
    let expected = expected(&folder);
    let noisy: Vec<&str> =
        expected["noisy_probes"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let rows = cleaned.chunks_exact(dim + 1).zip(set.probes.paths.iter());
    let reference = theirs("facescrub");
    for ((ours, path), theirs) in rows.zip(reference.chunks_exact(dim + 1)) {
        if noisy.contains(&path.as_str()) {
            let gap = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 2e-3 && ours[dim] == 0.0, "{path}: {gap}");
        } else {
            assert_eq!(ours, theirs, "{path}");
        }
    }
}

#[test]
fn golden_megaface_reports_do_not_depend_on_order_or_threads() {
    let Some(folder) = folder() else { return };
    let run = |set: &MegaFaceSet, n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| judge(set, &options(), |_| Ok(())).unwrap())
    };
    let plain = set(&folder, None);
    let mut turned = plain.clone();
    turned.galleries.iter_mut().for_each(|gallery| gallery.paths.reverse());
    let report = run(&plain, 1);
    assert_eq!(run(&plain, 2), report);
    assert_eq!(run(&turned, 2), report);
}
