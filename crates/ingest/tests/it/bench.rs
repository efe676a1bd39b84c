//! `pfc-ingest bench`.

use crate::common::{Bench, jpeg, stdout};

#[test]
fn every_stage_is_measured_on_one_thread_and_on_all() {
    let bench = Bench::new();
    for i in 0..5 {
        bench.write(&format!("faces/ann/{i}.jpg"), &jpeg(112, 112));
    }
    bench.run("pack faces data").success();
    let report = bench.json("bench data --images 3 --rounds 2 --threads 2 --json");
    assert_eq!(report["images"], 3);
    let measured = report["measured"].as_array().unwrap();
    let threads: Vec<u64> = measured.iter().map(|m| m["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 1, 1, 1, 2, 2, 2, 2]);
    for m in measured {
        assert!(m["images_per_second"].as_f64().unwrap() > 0.0, "{m}");
        let is_bare = m["stage"] == "bare decoder";
        assert_eq!(m["of_bare_decoder"] == 1.0, is_bare, "{m}");
    }
    let text = stdout(&bench.run("bench data --rounds 1 --threads 1").success());
    assert!(text.contains("read, decode, mirror, normalise"), "{text}");
}
