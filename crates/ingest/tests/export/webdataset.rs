//! `--to webdataset`, read back with the `tar` crate.

use std::{collections::BTreeMap, fs, io::Read};

use serde_json::json;

use crate::{
    common::Bench,
    sets::{images, made, numbered, synthetic},
};

type Entries = Vec<(String, Vec<u8>)>;

/// The entries of one file, whose headers must carry nothing but name and size.
fn entries(bench: &Bench, path: &str) -> Entries {
    let bytes = fs::read(bench.path(path)).unwrap();
    assert!(bytes.len().is_multiple_of(512) && bytes.ends_with(&[0; 1024]));
    let mut archive = tar::Archive::new(&bytes[..]);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert!(header.entry_type().is_file());
        assert_eq!(header.mtime().unwrap() + header.uid().unwrap() + header.gid().unwrap(), 0);
        assert_eq!(header.mode().unwrap(), 0o644);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(entry).collect()
}

#[test]
fn a_sample_is_an_image_a_class_and_a_sidecar_under_one_key() {
    let bench = made(&["a", "part/b"], &[(1, "part/b/7.png"), (0, "a/1.jpg")]);
    bench.run("export data tars --to webdataset").success();
    let entries = entries(&bench, "tars/train-000000.tar");
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["jpg", "cls", "json"];
    let expected: Vec<String> = ["000000000", "000000001"]
        .iter()
        .flat_map(|key| expected.iter().map(move |extension| format!("{key}.{extension}")))
        .collect();
    assert_eq!(names, expected);
    assert_eq!((&entries[0].1, &entries[1].1), (&numbered(0), &b"1".to_vec()));
    assert_eq!((&entries[3].1, &entries[4].1), (&numbered(1), &b"0".to_vec()));
    let sidecar: serde_json::Value = serde_json::from_slice(&entries[2].1).unwrap();
    let expected = json!({
        "identity": "part/b", "label": 1, "source": "part/b/7.png", "width": 112, "height": 112,
    });
    assert_eq!(sidecar, expected);
}

#[test]
fn files_stay_below_their_size_and_hold_every_image_once() {
    let bench = Bench::new();
    bench.run("synth faces --identities 40 --images-per-identity 12").success();
    bench.run("pack faces data").success();
    let line = "export data tars --to webdataset --shard-mib 1 --name some --json";
    let summary = bench.json(line);
    let files = bench.tree("tars");
    assert!(files.len() > 2, "{} files", files.len());
    assert_eq!(summary["files"], files.len());
    let mut found = BTreeMap::new();
    for (i, (name, bytes)) in files.iter().enumerate() {
        assert_eq!(name.to_str().unwrap(), format!("some-{i:06}.tar"));
        assert!(bytes.len() <= 1 << 20, "{} has {} bytes", name.display(), bytes.len());
        for sample in entries(&bench, &format!("tars/{}", name.display())).chunks(3) {
            let label: u32 = std::str::from_utf8(&sample[1].1).unwrap().parse().unwrap();
            let sidecar: serde_json::Value = serde_json::from_slice(&sample[2].1).unwrap();
            let identity = sidecar["identity"].as_str().unwrap().to_owned();
            found.insert(sample[0].1.clone(), (label, identity));
        }
    }
    assert!(found == images(&bench.dataset("data")));
}

#[test]
fn the_order_is_that_of_the_rows_or_of_the_labels() {
    let bench = made(&["a", "b"], &[(1, "1"), (0, "2"), (1, "3"), (0, "4")]);
    let keys = |out: &str, order: &str| {
        bench.run(&format!("export data {out} --to webdataset {order}")).success();
        let entries = entries(&bench, &format!("{out}/train-000000.tar"));
        let keys = entries.iter().step_by(3).map(|(name, _)| name[8..9].to_owned());
        keys.collect::<String>()
    };
    assert_eq!(keys("one", ""), "0123");
    assert_eq!(keys("two", "--order label"), "1302");
}

#[test]
fn two_runs_give_the_same_bytes() {
    let bench = synthetic();
    bench.run("export data one --to webdataset --threads 1").success();
    bench.run("export data two --to webdataset --threads 2").success();
    assert!(bench.tree("one") == bench.tree("two"));
}
