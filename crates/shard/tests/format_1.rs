//! Old files stay readable: `tests/format-1` was written once by this crate and is kept.
//!
//! A new format gets a folder of its own. To make this one, remove it and set `PFC_BLESS=1`.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{FOUR_ROWS, NAMES, names, rows, spec};
use pfc_shard::{Checksum, Dataset, DatasetWriter, verify};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format-1");
const N_ROWS: u64 = 6;

fn make(dir: &Path) {
    let mut writer = DatasetWriter::create(dir, spec(FOUR_ROWS)).unwrap();
    rows(N_ROWS).iter().for_each(|row| assert!(writer.push(row.face()).is_ok()));
    let mut names = names();
    names.push(["dave", "david"]);
    writer.finish(names).unwrap();
}

#[test]
fn reads_data_sets_written_by_format_1() {
    let kept = Path::new(KEPT);
    if std::env::var_os("PFC_BLESS").is_some() && !kept.exists() {
        make(kept);
    }
    let report = verify(kept, |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);

    let dataset = Dataset::open(kept).unwrap();
    assert_eq!((dataset.len(), dataset.n_identities()), (N_ROWS, 4));
    for row in 0..N_ROWS {
        let face = dataset.get(row).unwrap();
        let name = NAMES[(row % 3) as usize];
        assert_eq!(face.label, (row % 3) as u32);
        assert_eq!(face.source, format!("{name}/ü{row:04}.jpg"));
        assert_eq!(dataset.identities().name(face.label), name);
        assert_eq!((face.width, face.height), (8, 8));
        assert_eq!(face.quality.sharpness, row as f32);
        assert_eq!((face.quality.brightness, face.quality.contrast.to_bits()), (0.5, 1 << 31));
    }
    assert_eq!(dataset.identities().names(3).collect::<Vec<_>>(), ["dave", "david"]);
    let manifest = dataset.manifest();
    assert_eq!((manifest.seed, manifest.tool.as_str()), (7, "test 1.0"));
    assert_eq!((&manifest.sources[..], manifest.arguments.len()), (&["raw/faces".into()][..], 2));
    assert!(manifest.shards.len() > 1 && manifest.shards[0].checksum != Checksum(0));
}
