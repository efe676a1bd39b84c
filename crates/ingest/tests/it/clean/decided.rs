//! Decisions count: every reader obeys them, people's answers stand, and damage is not handed on.

use std::fs;

use super::{embeddings, golden_network, packed, person};
use crate::common::{Bench, stderr, stdout};

/// Drops all but two images of each of twelve people of eight.
fn thinned() -> Bench {
    let bench = packed("");
    bench.run("clean data --pass many --max-images 2").success();
    bench
}

#[test]
fn every_reader_sees_what_decisions_leave_and_says_so_in_a_line() {
    let bench = thinned();
    let notice = "72 of 96 rows are left out by decisions; --as-packed reads them";
    for (command, out) in [
        ("export data OUT --to list", true),
        ("inspect data", false),
        ("show data --sample 200 -o OUT.png", false),
    ] {
        let line = |name: &str, flag: &str| format!("{} {flag}", command.replace("OUT", name));
        let text = stderr(&bench.run(&line("decided", "")).success());
        assert_eq!(text.matches(notice).count(), 1, "{command}: {text}");
        let text = stderr(&bench.run(&line("packed", "--as-packed")).success());
        assert!(!text.contains("left out"), "{command}: {text}");
        if out {
            let lines = |name: &str| {
                fs::read_to_string(bench.path(name).join("list.tsv")).unwrap().lines().count()
            };
            assert_eq!((lines("decided"), lines("packed")), (24, 96));
        }
    }
    let images = |flag: &str| bench.json(&format!("inspect data --json {flag}"))["images"].clone();
    assert_eq!((images(""), images("--as-packed")), (24.into(), 96.into()));
    let shown = |flag: &str| {
        let line = format!("show data --sample 200 -o s{}.png --json {flag}", flag.len());
        bench.json(&line)["images"].clone()
    };
    assert_eq!((shown(""), shown("--as-packed")), (24.into(), 96.into()));
}

#[test]
fn an_export_of_a_view_is_that_of_the_compacted_data_set() {
    let bench = thinned();
    bench.run("compact data clean").success();
    bench.run("export data a --to list").success();
    bench.run("export clean b --to list").success();
    assert!(bench.tree("a") == bench.tree("b"));
}

#[test]
fn cleaning_and_compacting_go_on_for_any_number_of_rounds_and_inspect_tells_them() {
    let bench = Bench::new();
    bench.run("synth faces --identities 4 --images-per-identity 16").success();
    bench.run("pack faces data").success();
    // In each round some more of person 2's images turn out to show somebody else.
    for (from, to, first) in [("data", "one", 13), ("one", "two", 10), ("two", "three", 7)] {
        let shows = |source: &str| {
            let image: usize = source.rsplit(['_', '.']).nth(1).unwrap().parse().unwrap();
            match person(source) {
                2 if image >= 13 => 30,
                2 if image >= 10.max(first) => 31,
                2 if image >= first => 32,
                other => other,
            }
        };
        bench.write("e.npy", &embeddings(&bench, from, shows));
        let line = format!(
            "clean {from} --pass outliers --embeddings e.npy --second-cluster split \
             --stranger 0.5 --outlier 0.1"
        );
        bench.run(&line).success();
        bench.run(&format!("compact {from} {to}")).success();
        bench.run(&format!("verify {to}")).success();
    }
    let three = bench.dataset("three");
    let names: Vec<&str> = (0..three.n_identities()).map(|l| three.identities().name(l)).collect();
    let split = (0..3).map(|number| format!("Person_000002#split-{number}"));
    let n_images = split.map(|name| {
        let label = three.identities().label_of(&name);
        label.map_or_else(
            || panic!("{name} is not in {names:?}"),
            |l| three.identities().n_images(l),
        )
    });
    assert_eq!((n_images.collect::<Vec<_>>(), names.len()), (vec![4, 3, 3], 7));
    let made = bench.json("inspect three --json")["lineage"].clone();
    let steps: Vec<&str> =
        made.as_array().unwrap().iter().map(|step| step["command"].as_str().unwrap()).collect();
    let round = ["clean", "compact"];
    assert_eq!(steps, [&["pack"][..], &round, &round, &round].concat());
    let text = stdout(&bench.run("inspect three").success());
    assert!(text.contains("made by") && text.contains("relabel 4"), "{text}");
}

/// Two people that look alike, merged by the first run; the answer to all questions.
fn merged_and_answered(answer: &str) -> (Bench, String) {
    let bench = packed("");
    let shows = |source: &str| if person(source) == 3 { 2 } else { person(source) };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    let line = "clean data --pass merges --embeddings data.npy --same-person 0.9".to_owned();
    bench.run(&line).success();
    bench.run("review export data review --margin 2").success();
    let table = fs::read_to_string(bench.path("review/review.csv")).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");
    bench.write("answers.csv", answered(&table, answer).as_bytes());
    bench.run("review import data answers.csv").success();
    (bench, line)
}

/// The table with one answer to every question; ids have no comma.
fn answered(table: &str, answer: &str) -> String {
    let mut lines = table.lines();
    let header = lines.next().unwrap().to_owned();
    let lines = lines.map(|line| line.replacen(",,", &format!(",{answer},"), 1));
    std::iter::once(header).chain(lines).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn people_that_are_different_stay_apart_in_later_runs_and_after_compact_and_merge() {
    for answer in ["keep", "different"] {
        let (bench, clean) = merged_and_answered(answer);
        bench.run(&clean).success();
        let identities =
            |set: &str| bench.json(&format!("inspect {set} --json"))["identities"].clone();
        assert_eq!(identities("data"), 12, "{answer}");
        bench.run("review export data again --margin 2").success();
        let asked = fs::read_to_string(bench.path("again/review.csv")).unwrap();
        assert_eq!(asked.lines().count(), 1, "only the header: {asked}");
        bench.run("compact data clean").success();
        bench.write("clean.npy", &fs::read(bench.path("data.npy")).unwrap());
        bench.run(&clean.replace("clean data", "clean clean")).success();
        assert_eq!(identities("clean"), 12, "{answer} after compact");
        // In a join a third data set that shows both must not bring them together.
        bench.run("pack faces/train other").success();
        let shows = |source: &str| if person(source) == 3 { 2 } else { person(source) };
        bench.write("other.npy", &embeddings(&bench, "other", shows));
        let join = "merge both data other --match embeddings --embeddings data.npy \
                    --embeddings other.npy --same-person 0.9";
        bench.run(join).success();
        bench.run("compact both joined").success();
        let joined = bench.dataset("joined");
        let label = |name: &str| joined.identities().label_of(name).unwrap();
        assert_ne!(label("data/Person_000002"), label("data/Person_000003"), "{answer}");
        bench.run("verify joined").success();
    }
}

#[test]
fn an_import_without_answers_or_with_known_ones_writes_nothing_and_says_so() {
    let (bench, _) = merged_and_answered("different");
    let n_runs = || fs::read_dir(bench.path("data/decisions")).unwrap().count();
    assert_eq!(n_runs(), 2);
    let text = stdout(&bench.run("review import data answers.csv").success());
    assert!(text.contains("nothing was written"), "{text}");
    bench.run("review export data empty").success();
    let text = stdout(&bench.run("review import data empty/review.csv").success());
    assert!(text.contains("no answers") && text.contains("nothing was written"), "{text}");
    assert_eq!(n_runs(), 2);
    let table = fs::read_to_string(bench.path("answers.csv")).unwrap();
    bench.write("bad.csv", table.replacen("different", "maybe", 1).as_bytes());
    let text = stderr(&bench.run("review import data bad.csv").code(2));
    assert!(text.contains("bad.csv: line 2: unknown answer `maybe`"), "{text}");
    let mut ids = table.lines().nth(1).unwrap().to_owned();
    ids.replace_range(0..1, "x");
    bench.write("bad.csv", format!("{}\n{ids}\n", table.lines().next().unwrap()).as_bytes());
    let text = stderr(&bench.run("review import data bad.csv").code(2));
    assert!(text.contains("line 2: no finding of this data set has the id"), "{text}");
    // Another answer to the same question replaces the first.
    bench.write("merge.csv", table.replacen("different", "merge", 1).as_bytes());
    bench.run("review import data merge.csv").success();
    assert_eq!(bench.json("inspect data --json")["identities"], 11);
    bench.run("review import data answers.csv").success();
    assert_eq!(bench.json("inspect data --json")["identities"], 12);
}

/// A JPEG whose Huffman table is broken: its outline is right, and no decoder gets pixels of it.
fn undecodable(jpeg: &[u8]) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let at = bytes.windows(2).position(|marker| marker == [0xff, 0xc4]).unwrap();
    bytes[at + 5..at + 21].fill(0xff);
    bytes
}

#[test]
fn an_image_that_cannot_be_decoded_is_found_and_left_out() {
    let bench = packed("");
    let name = "faces/train/Person_000001/Person_000001_0001.jpg";
    let broken = undecodable(&fs::read(bench.path(name)).unwrap());
    bench.write(name, &broken);
    bench.run("pack faces/train broken --validate header").success();
    bench.run("verify broken").success();
    let text = stdout(&bench.run("verify broken --decode").code(1));
    assert!(text.contains("its image cannot be decoded"), "{text}");
    bench.run("clean broken --pass small").success();
    let found = bench.json("decisions show broken --reason undecodable --json");
    assert_eq!(found.as_array().unwrap().len(), 1);
    bench.run("compact broken whole").success();
    assert_eq!(bench.dataset("whole").len(), 95);
    bench.run("verify whole --decode").success();
}

#[test]
fn golden_models_join_data_sets_without_the_images_that_cannot_be_decoded() {
    let Some(model) = golden_network() else { return };
    let bench = Bench::new();
    bench.run("synth faces --identities 4 --images-per-identity 3").success();
    let name = "faces/Person_000001/Person_000001_0001.jpg";
    bench.write(name, &undecodable(&fs::read(bench.path(name)).unwrap()));
    bench.run("pack faces broken --validate header").success();
    bench.run("synth more --identities 3 --images-per-identity 3 --seed 2").success();
    bench.run("pack more other").success();
    let line = format!(
        "merge both broken other --match embeddings --same-person 0.99 --json --model {}",
        model.display()
    );
    let run = bench.run(&line).success();
    let summary: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert_eq!((&summary["images"], &summary["undecodable"]), (&20.into(), &1.into()));
    let text = stderr(&run);
    let expected = "`Person_000001/Person_000001_0001.jpg`, cannot be decoded: left out";
    assert!(text.contains(expected), "{text}");
    bench.run("verify both --decode").success();
    // The data set itself stays as it is, and so does what was computed.
    assert_eq!(bench.dataset("broken").len(), 12);
    assert_eq!(bench.tree("broken/embeddings").len(), 2);
}

/// Flips a bit of the label or the source of a row in the last shard, past its images.
fn flip(bench: &Bench, data: &str, what: &str) {
    let dataset = bench.dataset(data);
    let path = bench.path(data).join("shards/00000.arrow");
    let mut bytes = fs::read(&path).unwrap();
    let at = match what {
        "label" => {
            let labels: Vec<u8> =
                dataset.labels().unwrap().iter().flat_map(|label| label.to_le_bytes()).collect();
            bytes.windows(labels.len()).position(|window| window == labels).unwrap()
        }
        _ => bytes.windows(11).position(|window| window == b"Person_0000").unwrap() + 7,
    };
    bytes[at] ^= 1;
    drop(dataset);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_flipped_label_or_source_is_never_handed_on() {
    for what in ["label", "source"] {
        let bench = packed("");
        bench.write("e.npy", &embeddings(&bench, "data", person));
        bench.run("pack faces/test other").success();
        bench.write("o.npy", &embeddings(&bench, "other", person));
        flip(&bench, "data", what);
        bench.run("verify data").code(1);
        for line in [
            "compact data out",
            "export data out --to list",
            "export data out --to folder",
            "export data out --to recordio",
            "export data out --to webdataset",
            "export data out --to parquet",
            "export data out --to list --as-packed",
            "merge out data other --match embeddings --embeddings e.npy --embeddings o.npy \
             --same-person 0.8",
        ] {
            let text = stderr(&bench.run(line).code(2));
            assert!(text.contains("shards/00000.arrow: has checksum"), "{what}, {line}: {text}");
            assert!(text.contains("hint:") && !bench.path("out").exists(), "{line}: {text}");
        }
    }
}

/// Every bit of the small files of a data set: found by `verify`, or without meaning.
#[test]
fn verify_finds_flipped_bits_in_every_file_that_means_something() {
    let bench = packed("--noise duplicated=0.1");
    bench.write("faces/train/Person_000001/broken.jpg", b"no image");
    bench.run("pack faces/train set").success();
    bench.run("clean set --pass exact,near").success();
    let e = embeddings(&bench, "set", person);
    bench.write("e.npy", &e);
    bench.run("pack faces/test other").success();
    bench.write("o.npy", &embeddings(&bench, "other", person));
    let join = "merge both set other --match embeddings --embeddings e.npy --embeddings o.npy \
                --same-person 0.8 --as-packed";
    bench.run(join).success();
    bench.run("verify set").success();
    bench.run("verify both").success();
    let find = |file: &str, at: usize, bit: usize| {
        let path = bench.path(file);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        let set = file.split('/').next().unwrap();
        let code = bench.run(&format!("verify {set} -q")).get_output().status.code();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole).unwrap();
        code
    };
    for file in ["set/dataset.json", "set/quarantine.jsonl", "both/embeddings/joined.npy"] {
        let n = fs::read(bench.path(file)).unwrap().len();
        let step = (n / 40).max(1);
        for (i, at) in (0..n).step_by(step).enumerate() {
            assert!(matches!(find(file, at, i % 8), Some(1 | 2)), "{file}: byte {at}");
        }
    }
    // Padding of an Arrow file means nothing; what is read of it is what was written, or an error.
    let run = "set/decisions/000.arrow";
    let before = bench.json("decisions show set --json");
    let n = fs::read(bench.path(run)).unwrap().len();
    let mut n_found = 0;
    for (i, at) in (0..n).step_by(n / 40).enumerate() {
        match find(run, at, i % 8) {
            Some(1) => n_found += 1,
            code => assert_eq!(code, Some(0), "byte {at}"),
        }
        assert_eq!(bench.json("decisions show set --json"), before);
    }
    assert!(n_found > 10, "{n_found}");
}

#[test]
fn verify_names_what_is_missing_and_what_does_not_belong() {
    let bench = packed("");
    bench.write("data/shards/00009.arrow", b"x");
    bench.write("data/decisions/notes.txt", b"x");
    bench.write("data/NOTES.txt", b"x");
    let text = stdout(&bench.run("verify data").code(1));
    assert!(text.contains("shards/00009.arrow: is not listed in the manifest"), "{text}");
    assert!(text.contains("decisions/notes.txt: is no run of decisions"), "{text}");
    assert!(text.contains("note: NOTES.txt: is no file of the data set"), "{text}");
    fs::remove_file(bench.path("data/shards/00009.arrow")).unwrap();
    fs::remove_file(bench.path("data/decisions/notes.txt")).unwrap();
    bench.run("verify data").success();
    fs::remove_file(bench.path("data/quarantine.jsonl")).unwrap();
    let text = stdout(&bench.run("verify data").code(1));
    assert!(text.contains("quarantine.jsonl: is missing"), "{text}");
}

#[test]
fn cleaning_again_asks_nothing_twice() {
    let bench = packed("");
    let shows = |source: &str| if person(source) == 3 { 2 } else { person(source) };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    let line = "clean data --pass merges --embeddings data.npy --same-person 0.999 \
                --maybe-same-person 0.7";
    (0..3).for_each(|_| drop(bench.run(line).success()));
    assert_eq!(bench.json("review export data review --json")["questions"], 1);
    let known = bench.json(&format!("{line} --json"))["known"].clone();
    assert_eq!(known, 1);
}
