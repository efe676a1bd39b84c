//! The whole of LFW, where it is at hand: `PFC_FACES`, by default beside the project.

use std::fs;

use crate::common::{Bench, stdout};

#[test]
fn all_of_lfw_packs_the_same_with_one_and_two_threads_and_a_flipped_byte_is_found() {
    let Some(lfw) = pfc_testing::faces("lfw112") else { return };
    let bench = Bench::new();
    let pack = |out: &str, threads: u32| {
        let lfw = lfw.display();
        bench.json(&format!("pack {lfw} {out} --threads {threads} --shard-mib 16 --json"))
    };
    let summary = pack("one", 1);
    assert_eq!((&summary["images"], &summary["identities"]), (&13_233.into(), &5_749.into()));
    assert_eq!((&summary["passed_through"], &summary["quarantined"]), (&13_233.into(), &0.into()));
    pack("two", 2);
    assert!(bench.tree("one") == bench.tree("two"));
    let run = bench.run("verify one").success();
    assert!(stdout(&run).starts_with("whole: 13,233 rows"));
    let path = bench.path("one/shards/00001.arrow");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let text = stdout(&bench.run("verify one").code(1));
    assert!(text.contains("shards/00001.arrow"), "{text}");
    assert!(!text.contains("shards/00000.arrow"), "{text}");
}
