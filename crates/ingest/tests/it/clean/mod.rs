//! `pfc-ingest clean`, `decisions`, `compact`, `review`, `report` and `merge --match`.

mod decided;
mod people;
mod review_page;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{Bench, stderr, stdout};

/// A network of the known answers, where there is one and onnxruntime to run it.
fn golden_network() -> Option<PathBuf> {
    let is_onnx = |path: &Path| pfc_testing::has_extension(path, "onnx");
    let model = pfc_testing::golden_cases("backbones", is_onnx).first()?.clone();
    match pfc_onnx::runtime::load() {
        Ok(_) => Some(model),
        Err(error) => {
            pfc_testing::skip(&error.to_string());
            None
        }
    }
}

/// Twelve people of eight images; with `noise`, faults among them.
fn packed(noise: &str) -> Bench {
    let bench = Bench::new();
    let line = "synth faces --identities 12 --images-per-identity 8 --holdout 4";
    bench.run(&format!("{line} {noise}")).success();
    bench.run("pack faces/train data").success();
    bench
}

/// Embeddings of 16 numbers by row: along the axis of who is shown, and a little aside.
fn embeddings(bench: &Bench, data: &str, shows: impl Fn(&str) -> usize) -> Vec<u8> {
    let dataset = bench.dataset(data);
    let mut rows = Vec::new();
    for row in 0..dataset.len() {
        let source = dataset.get(row).unwrap().source.to_owned();
        let mut state = source.bytes().fold(7u64, |s, b| s.wrapping_mul(31).wrapping_add(b.into()));
        for axis in 0..48 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let aside = ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.12;
            let value = if axis == shows(&source) { 1.0 } else { 0.0 } + aside;
            rows.extend(value.to_le_bytes());
        }
    }
    npy(dataset.len(), 48, &rows)
}

fn npy(rows: u64, dim: usize, numbers: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    [&bytes, text.as_bytes(), numbers].concat()
}

/// The number in `Person_000007/…`.
fn person(source: &str) -> usize {
    source.split(['_', '/']).nth(1).unwrap().parse().unwrap()
}

fn truth(bench: &Bench) -> serde_json::Value {
    serde_json::from_slice(&fs::read(bench.path("faces/synth.json")).unwrap()).unwrap()
}

fn decisions(bench: &Bench, how: &str) -> Vec<serde_json::Value> {
    let all = bench.json(&format!("decisions show data {how} --json"));
    all.as_array().unwrap().clone()
}

/// Writes the picture in `from` to `to`, encoded anew.
fn encoded_again(bench: &Bench, from: &str, to: &str, quality: u8, is_mirrored: bool) {
    let mut picture = image::open(bench.path(from)).unwrap();
    if is_mirrored {
        picture = picture.fliph();
    }
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality);
    picture.write_with_encoder(encoder).unwrap();
    bench.write(to, &jpeg);
}

#[test]
fn mirrored_copies_are_found() {
    let bench = Bench::new();
    bench.run("synth faces --identities 4 --images-per-identity 4").success();
    let of = "faces/Person_000001/Person_000001_0002.jpg";
    encoded_again(&bench, of, "faces/Person_000001/mirrored.jpg", 80, true);
    bench.run("pack faces data").success();
    let text = stdout(&bench.run("clean data --pass near").success());
    assert!(text.contains(" of pictures; none was left out"), "{text}");
    let found = decisions(&bench, "");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["reason"], &found[0]["action"]),
        (&"near_duplicate".into(), &"drop".into())
    );
    let pair = [&found[0]["source"], &found[0]["partner_source"]].map(|s| s.as_str().unwrap());
    let expected =
        ["Person_000001/Person_000001_0002.jpg", "Person_000001/mirrored.jpg"].map(str::to_owned);
    assert!(expected.iter().all(|source| pair.contains(&source.as_str())), "{pair:?}");
}

#[test]
fn a_picture_under_many_names_is_asked_about_once_for_each_further_name() {
    let bench = Bench::new();
    bench.run("synth faces --identities 2 --images-per-identity 3").success();
    let of = "faces/Person_000000/Person_000000_0001.jpg";
    for i in 0..9 {
        encoded_again(&bench, of, &format!("faces/name{i}/copy.jpg"), 60 + 4 * i, false);
    }
    bench.run("pack faces data").success();
    bench.run("clean data --pass near").success();
    let found = decisions(&bench, "");
    assert_eq!(found.len(), 9, "{found:?}");
    assert!(found.iter().all(|d| d["reason"] == "one_picture_two_names"), "{found:?}");
    // All of them are compared with one image that stays, the sharpest.
    let partners: BTreeSet<&str> =
        found.iter().map(|d| d["partner_source"].as_str().unwrap()).collect();
    assert_eq!(partners.len(), 1, "{partners:?}");
    // The same again is known.
    bench.run("clean data --pass near").success();
    assert_eq!(decisions(&bench, "").len(), 9);
}

#[test]
fn one_file_under_many_names_is_asked_about_once_for_each_further_name() {
    let bench = Bench::new();
    bench.run("synth faces --identities 2 --images-per-identity 3").success();
    let file = fs::read(bench.path("faces/Person_000000/Person_000000_0001.jpg")).unwrap();
    for i in 0..40 {
        bench.write(&format!("faces/name{i:02}/copy.jpg"), &file);
    }
    bench.run("pack faces data").success();
    // The second time all of it is known.
    for _ in 0..2 {
        bench.run("clean data --pass exact").success();
        let found = decisions(&bench, "");
        let of_names = |d: &serde_json::Value| {
            d["reason"] == "one_picture_two_names" && d["action"] == "suspect"
        };
        assert_eq!(found.len(), 40, "{found:?}");
        assert!(found.iter().all(of_names), "{found:?}");
        let partners: BTreeSet<&str> =
            found.iter().map(|d| d["partner_source"].as_str().unwrap()).collect();
        assert_eq!(partners.len(), 1, "{partners:?}");
    }
}

#[test]
fn copies_and_re_encoded_copies_are_found_and_nothing_else() {
    let bench = packed("--noise duplicated=0.1");
    bench.run("clean data --pass exact,near").success();
    let twice = truth(&bench)["faults"].as_array().unwrap().clone();
    assert!(twice.len() >= 9);
    let mut expected = BTreeSet::new();
    for fault in &twice {
        let name = |key: &str| fault[key].as_str().unwrap().trim_start_matches("train/").to_owned();
        expected.insert((name("path"), name("of")));
    }
    let found = decisions(&bench, "--action drop");
    let text = |d: &serde_json::Value, key: &str| d[key].as_str().unwrap().to_owned();
    assert_eq!(found.len(), expected.len());
    for decision in found {
        let (a, b) = (text(&decision, "source"), text(&decision, "partner_source"));
        let of_same = |pair: &&(String, String)| {
            [&pair.0, &pair.1].contains(&&a) || [&pair.0, &pair.1].contains(&&b)
        };
        assert!(expected.iter().any(|pair| of_same(&pair)), "{a} {b}");
    }
}

#[test]
fn cleaning_undone_and_done_again_gives_the_same_bytes_and_compact_verifies() {
    let bench = packed("--noise duplicated=0.1,junk=0.06");
    bench.run("clean data --threads 2").success();
    let first = fs::read(bench.path("data/decisions/000.arrow")).unwrap();
    bench.run("decisions undo data").success();
    assert!(!bench.path("data/decisions/000.arrow").exists());
    bench.run("clean data --threads 1").success();
    assert_eq!(fs::read(bench.path("data/decisions/000.arrow")).unwrap(), first);
    bench.run("verify data").success();
    let listed = bench.json("decisions list data --json");
    let summary = bench.json("compact data clean --json");
    let left_out = listed["images_left_out"].as_u64().unwrap();
    assert!(left_out > 0);
    assert_eq!(summary["images"].as_u64().unwrap() + left_out, listed["images"]);
    bench.run("verify clean").success();
}

#[test]
fn junk_is_left_out_and_faces_are_not() {
    let bench = packed("--noise junk=0.1");
    bench.run("clean data --pass small,blurred,blank,aspect").success();
    let junk = truth(&bench)["faults"].as_array().unwrap().clone();
    let path = |f: &serde_json::Value| f["path"].as_str().unwrap().replace("train/", "");
    let expected: BTreeSet<String> = junk.iter().map(path).collect();
    let source = |d: &serde_json::Value| d["source"].as_str().unwrap().to_owned();
    let found: BTreeSet<String> = decisions(&bench, "").iter().map(source).collect();
    assert_eq!(found, expected);
}

#[test]
fn wrong_labels_are_set_right_and_split_people_joined() {
    let bench = packed("--noise mislabelled=0.04,split=0.2");
    let truth = truth(&bench);
    let list = |key: &str| truth[key].as_array().unwrap().clone();
    let word = |v: &serde_json::Value, key: &str| v[key].as_str().unwrap().to_owned();
    let shows = |source: &str| {
        let fault = list("faults").into_iter().find(|f| word(f, "path").ends_with(source));
        let folder = source.split('/').next().unwrap().to_owned();
        let split = list("splits").into_iter().find(|s| word(s, "other") == folder);
        let who = fault.map(|f| word(&f, "shows")).or(split.map(|s| word(&s, "identity")));
        person(&who.unwrap_or(folder))
    };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    let line = "clean data --pass embeddings --embeddings data.npy --same-person 0.8 \
                --label-match 0.7 --stranger 0.5 --outlier 0.3";
    bench.run(&format!("{line} --threads 2")).success();
    let first = fs::read(bench.path("data/decisions/000.arrow")).unwrap();
    bench.run("decisions undo data").success();
    bench.run(&format!("{line} --threads 1")).success();
    assert_eq!(fs::read(bench.path("data/decisions/000.arrow")).unwrap(), first);
    let relabelled = decisions(&bench, "--action relabel");
    assert_eq!(relabelled.len(), list("faults").len());
    let merged = decisions(&bench, "--action merge");
    assert_eq!(merged.len(), list("splits").len());
    bench.run("compact data clean").success();
    bench.run("verify clean").success();
    let clean = bench.dataset("clean");
    assert_eq!(clean.n_identities(), 12);
    for row in 0..clean.len() {
        let face = clean.get(row).unwrap();
        let names: Vec<&str> = clean.identities().names(face.label).collect();
        let who = shows(face.source);
        assert!(names.iter().any(|name| person(name) == who), "{} is {names:?}", face.source);
    }
}

#[test]
fn people_of_the_benchmark_are_left_out() {
    let bench = packed("--hidden 2");
    let truth = truth(&bench);
    let hidden = truth["hidden"].as_array().unwrap().clone();
    let word = |v: &serde_json::Value, key: &str| v[key].as_str().unwrap().to_owned();
    let shows = |source: &str| {
        let folder = source.split('/').next().unwrap();
        let of = hidden.iter().find(|h| word(h, "identity") == folder);
        person(&of.map_or(folder.to_owned(), |h| word(h, "shows")))
    };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    bench.run("pack faces/test test").success();
    bench.write("test.npy", &embeddings(&bench, "test", person));
    bench
        .run("clean data --pass overlap --embeddings data.npy --probes test.npy --probe-match 0.7")
        .success();
    let identity = |d: &serde_json::Value| word(d, "identity");
    let found: BTreeSet<String> = decisions(&bench, "--action drop").iter().map(identity).collect();
    assert_eq!(found, hidden.iter().map(identity).collect());
    // One question an identity; what is answered still tells the probe from a row of that number.
    bench.run("review export data review --margin 2").success();
    let table = fs::read_to_string(bench.path("review/review.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + hidden.len());
    let answered: Vec<String> =
        table.lines().map(|line| line.replacen(",,", ",keep,", 1)).collect();
    bench.write("answers.csv", answered.join("\n").as_bytes());
    bench.run("review import data answers.csv").success();
    let reviewed = decisions(&bench, "--reason reviewed_benchmark_overlap");
    assert_eq!(reviewed.len(), 16);
    assert!(reviewed.iter().all(|d| d["partner"].is_u64() && d["partner_source"].is_null()));
    assert_eq!(bench.json("inspect data --json")["images"], 112);
}

#[test]
fn answers_become_decisions_that_later_runs_respect() {
    let bench = packed("--noise duplicated=0.1");
    let shows = |source: &str| if person(source) == 3 { 2 } else { person(source) };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    let line = "clean data --pass merges --embeddings data.npy --same-person 0.999 --maybe-same-person 0.7";
    bench.run(line).success();
    let exported = bench.json("review export data review --json");
    assert_eq!((exported["questions"].as_u64(), exported["sheets"].as_u64()), (Some(1), Some(1)));
    assert!(image::open(bench.path("review/sheet-000.png")).is_ok());
    let table = fs::read_to_string(bench.path("review/review.csv")).unwrap();
    bench.write("answers.csv", table.replacen(",,", ",merge,", 1).as_bytes());
    let imported = bench.json("review import data answers.csv --json");
    assert_eq!((imported["answers"].as_u64(), imported["open"].as_u64()), (Some(1), Some(0)));
    assert_eq!(bench.json("compact data clean --json")["identities"], 11);
    // The same answer again is an answer, and decides nothing.
    let imported = bench.json("review import data answers.csv --json");
    assert_eq!((imported["answers"].as_u64(), imported["known"].as_u64()), (Some(1), Some(1)));
    assert!(imported["run"].is_null());
    assert_eq!(decisions(&bench, "--reason reviewed_same_person").len(), 1);
}

#[test]
fn a_report_is_one_page_with_pictures_and_without_references() {
    let bench = packed("--noise duplicated=0.1");
    bench.run("clean data").success();
    bench.run("report data -o report.html").success();
    let html = fs::read_to_string(bench.path("report.html")).unwrap();
    assert!(html.contains("data:image/jpeg;base64,") && html.contains("near duplicate"));
    assert!(!html.contains("http") && !html.contains("<script"));
    let text = stderr(&bench.run("report data -o report.html").code(2));
    assert!(text.contains("report.html: already exists"), "{text}");
}

#[test]
fn data_sets_with_people_in_common_become_one() {
    let bench = Bench::new();
    bench.run("synth faces --identities 10 --images-per-identity 6").success();
    // Persons 0 to 5 in one set, 4 to 9 under other names in the other; 4 and 5 are in both.
    for i in 0..10 {
        for image in 1..=6 {
            let name = format!("Person_{i:06}");
            let bytes =
                fs::read(bench.path(&format!("faces/{name}/{name}_{image:04}.jpg"))).unwrap();
            let (first, second) = (i < 4 || (i < 6 && image <= 3), i >= 6 || (i >= 4 && image > 3));
            if first {
                bench.write(&format!("a/{name}/{image}.jpg"), &bytes);
            }
            if second {
                bench.write(&format!("b/Other_{i:06}/{image}.jpg"), &bytes);
            }
        }
    }
    bench.run("pack a first").success();
    bench.run("pack b second").success();
    bench.write("a.npy", &embeddings(&bench, "first", person));
    bench.write("b.npy", &embeddings(&bench, "second", person));
    let line = "merge both first second --match embeddings --embeddings a.npy --embeddings b.npy";
    bench.run(&format!("{line} --same-person 0.8")).success();
    bench.run("verify both").success();
    bench.run("compact both joined").success();
    let joined = bench.dataset("joined");
    assert_eq!((joined.len(), joined.n_identities()), (60, 10));
    let label = joined.identities().label_of("first/Person_000004").unwrap();
    assert_eq!(joined.identities().label_of("second/Other_000004"), Some(label));
    let face = joined.get(0).unwrap();
    assert!(face.source.starts_with("first/") || face.source.starts_with("second/"));
    refused(&bench, line, "both: already exists and is not empty");
}

#[test]
fn parts_of_one_name_get_names_of_their_own() {
    let bench = packed("");
    for folder in ["x/data-1", "y/data", "z/data"] {
        bench.run(&format!("pack faces/train {folder}")).success();
    }
    let mut line =
        "merge all x/data-1 y/data z/data --match embeddings --same-person 0.8".to_owned();
    bench.write("e.npy", &embeddings(&bench, "x/data-1", person));
    (0..3).for_each(|_| line += " --embeddings e.npy");
    bench.run(&line).success();
    let all = bench.dataset("all");
    assert_eq!(all.manifest().sources, ["data-1", "data", "data-2"]);
    assert_eq!((all.len(), all.n_identities()), (3 * 96, 3 * 12));
}

#[test]
fn identities_of_few_images_go_and_large_ones_are_cut() {
    let bench = packed("");
    bench.write(
        "raw/only/1.jpg",
        &fs::read(bench.path("faces/test/Person_000012/Person_000012_0001.jpg")).unwrap(),
    );
    bench.run("pack raw tiny").success();
    bench.run("clean tiny --pass few --min-images 2").success();
    bench.run("clean data --pass many --max-images 5").success();
    assert_eq!(bench.json("compact data clean --json")["images"], 60);
    assert_eq!(bench.json("decisions list tiny --json")["images_left_out"], 1);
}

#[track_caller]
fn refused(bench: &Bench, line: &str, expected: &str) {
    let text = stderr(&bench.run(line).code(2));
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_cannot_be_cleaned_says_why_and_what_to_do() {
    let bench = packed("");
    refused(&bench, "clean data --pass merges", "hint: give them with --embeddings FILE");
    refused(&bench, "clean data --pass few", "pass `few` needs --min-images");
    bench.write("short.npy", &npy(1, 4, &[0; 16]));
    refused(&bench, "clean data --pass merges --embeddings short.npy", "1 embeddings for 96 rows");
    bench.write("zero.npy", &npy(96, 4, &[0; 96 * 16]));
    refused(&bench, "clean data --pass merges --embeddings zero.npy", "is zero or not finite");
    bench.write("cut.npy", &npy(96, 4, &[0; 16]));
    refused(&bench, "clean data --pass merges --embeddings cut.npy", "do not fit into its");
    refused(&bench, "clean nothing", "no data set here");
    refused(&bench, "decisions undo data", "there is no run 0 among 0");
    refused(
        &bench,
        "merge out data --match embeddings --model m.onnx",
        "1 data sets cannot be joined",
    );
}
