//! Inputs that name their images themselves, packed in parts.

use super::tars::{gzip, tar};
use crate::{
    common::{Bench, stderr},
    resume::grey,
};

const OPTIONS: &str = "--size 16 --shard-rows 4";

fn list(names: impl Iterator<Item = u8>) -> String {
    names.map(|i| format!("{i}.jpg\t{}\n", i % 2)).collect()
}

#[test]
fn a_list_that_names_other_files_is_another_input() {
    let bench = Bench::new();
    for i in 0..22 {
        bench.write(&format!("{i}.jpg"), &grey(i));
    }
    // As many images of as many people; only a sample of the images is compared by content, so the
    // one that is exchanged has the content of the one that it takes the place of.
    bench.write("20.jpg", &grey(0));
    bench.write("l.tsv", list(0..20).as_bytes());
    bench.run(&format!("pack l.tsv data {OPTIONS} --worker 0/2")).success();
    bench.write("l.tsv", list((1..20).chain([20])).as_bytes());
    let run = bench.run(&format!("pack l.tsv data {OPTIONS} --worker 1/2")).code(2);
    let text = stderr(&run);
    assert!(text.contains("the input's files have other names than before"), "{text}");
}

#[test]
fn workers_that_unpack_a_shard_each_make_the_bytes_of_one_run() {
    let bench = Bench::new();
    let faces: Vec<(String, Vec<u8>)> = (0..22).map(|i| (format!("{i:02}.jpg"), grey(i))).collect();
    let labels: Vec<(String, String)> =
        (0..22).map(|i| (format!("{i:02}.cls"), (i % 3).to_string())).collect();
    let members: Vec<(&str, &[u8])> = faces
        .iter()
        .map(|(name, face)| (&name[..], &face[..]))
        .chain(labels.iter().map(|(name, label)| (&name[..], label.as_bytes())))
        .collect();
    bench.write("x.tar.gz", &gzip(&tar(&members)));
    bench.run(&format!("pack x.tar.gz whole {OPTIONS}")).success();
    for worker in ["0/2", "1/2"] {
        bench.run(&format!("pack x.tar.gz data {OPTIONS} --worker {worker}")).success();
    }
    bench.run("merge data").success();
    assert!(bench.tree("data") == bench.tree("whole"));
    assert_eq!(bench.dataset("data").len(), 22);
}
