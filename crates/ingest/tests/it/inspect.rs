//! `pfc-ingest inspect`, and the parts that all commands share.

use crate::common::{Bench, jpeg, stdout};

fn packed() -> Bench {
    let bench = Bench::new();
    for (name, n) in [("ann", 1), ("bob", 3), ("cid", 3), ("dan", 9)] {
        for i in 0..n {
            bench.write(&format!("faces/{name}/{i}.jpg"), &jpeg(112, 112));
        }
    }
    bench.write("faces/ann/broken.jpg", b"");
    bench.run("pack faces data --seed 7").success();
    bench
}

#[test]
fn the_table_shows_counts_sizes_and_the_spread_of_images() {
    let bench = packed();
    let text = stdout(&bench.run("inspect data").success());
    insta::with_settings!({filters => vec![
        (r"[0-9.]+ [KM]iB", "[SIZE]"),
        (r"pfc-ingest \d+\.\d+\.\d+", "pfc-ingest [VERSION]"),
        (r"[ ]+\n", "\n"),
        (r"─+", "─"),
        (r"═+", "═"),
    ]}, { insta::assert_snapshot!(text) });
}

#[test]
fn the_same_comes_as_json() {
    let report = packed().json("inspect data --json");
    assert_eq!(report["images"], 16);
    assert_eq!(report["identities"], 4);
    assert_eq!(report["image_size"]["width"], 112);
    assert_eq!(report["seed"], 7);
    assert_eq!(report["sources"][0], "faces");
    assert_eq!(report["left_out"]["empty"], 1);
    let spread = &report["images_per_identity"];
    assert_eq!((&spread["least"], &spread["most"]), (&1.into(), &9.into()));
    assert_eq!(spread["mean"], 4.0);
    let measures = &report["measures"];
    assert_eq!(measures["bytes"]["mean"], jpeg(112, 112).len() as f64);
    assert!(measures["brightness"]["median"].as_f64().unwrap() > 50.0);
}

#[test]
fn help_and_completions_are_printed_and_nonsense_is_a_usage_error() {
    let bench = Bench::new();
    for command in ["synth", "pack", "align", "verify", "inspect", "show", "bench"] {
        let text = stdout(&bench.run(&format!("{command} --help")).success());
        assert!(text.contains("Examples:"), "{command}");
    }
    assert!(stdout(&bench.run("completions bash").success()).contains("pfc-ingest"));
    bench.run("pakc").code(2);
    bench.run("").code(2);
}
