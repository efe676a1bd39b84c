//! What an input is taken for.

use super::{check_rows, face};
use crate::common::Bench;

#[test]
fn a_file_is_told_by_its_bytes_where_its_name_says_nothing() {
    let bench = Bench::new();
    bench.write("faces/a.jpg", &face(1));
    bench.write("faces/unnamed", b"a.jpg\tx\n");
    bench.run("pack faces/unnamed data").code(2);
    bench.run("pack faces/unnamed data --from list").success();
    check_rows(&bench, "data", &[("a.jpg", 0, "x", 1)]);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("1.jpg", &face(2)[..]), ("1.cls", b"0")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    }
    bench.write("shard", &builder.into_inner().unwrap());
    bench.run("pack shard data --force").success();
    check_rows(&bench, "data", &[("shard/1.jpg", 0, "0", 2)]);
}

#[test]
fn a_folder_with_shards_beside_folders_wants_a_word_and_takes_it() {
    let bench = Bench::new();
    bench.write("raw/ann/1.jpg", &face(1));
    bench.write("raw/old.tar", b"");
    bench.write("raw/.cache.parquet", b"");
    bench.run("pack raw data").code(2);
    bench.run("pack raw data --from folder").success();
    check_rows(&bench, "data", &[("ann/1.jpg", 0, "ann", 1)]);
}
