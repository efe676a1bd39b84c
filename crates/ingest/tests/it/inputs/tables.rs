//! Parquet and Arrow files, written by the Arrow project's own writers.

use std::{fs::File, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, Int64Array, LargeBinaryArray, RecordBatch, StringArray, StructArray,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, GzipLevel, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{check_rows, face, rows};
use crate::common::{Bench, stderr};

const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
    "label": {"names": ["Zoe", "Ann", "Bob"], "_type": "ClassLabel"}}}}"#;

/// A column of {bytes, path}, as Hugging Face stores images.
fn images(faces: &[Option<u8>]) -> ArrayRef {
    let bytes: Vec<Option<Vec<u8>>> = faces.iter().map(|i| i.map(face)).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(bytes));
    let paths: ArrayRef = Arc::new(StringArray::from_iter(faces.iter().map(|_| Some("x.jpg"))));
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    Arc::new(StructArray::new(fields, vec![bytes, paths], None))
}

fn table(columns: Vec<(&str, ArrayRef)>, features: Option<&str>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let metadata = features.map(|text| ("huggingface".to_owned(), text.to_owned()));
    let schema = Schema::new(fields)
        .with_metadata(metadata.into_iter().collect::<std::collections::HashMap<_, _>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn faces_and_labels(faces: std::ops::Range<u8>, label: impl Fn(u8) -> i64) -> RecordBatch {
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(faces.clone().map(label)));
    let faces: Vec<Option<u8>> = faces.map(Some).collect();
    table(vec![("image", images(&faces)), ("label", labels)], Some(FEATURES))
}

fn write_parquet(bench: &Bench, path: &str, batch: &RecordBatch, compression: Compression) {
    bench.write(path, b"");
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(7))
        .build();
    let file = File::create(bench.path(path)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn tables_of_several_row_groups_are_packed_with_the_names_of_their_classes() {
    let bench = Bench::new();
    let snappy = Compression::SNAPPY;
    let [first, second] =
        [faces_and_labels(0..20, |i| (i % 3).into()), faces_and_labels(20..30, |_| 2)];
    write_parquet(&bench, "hf/train-00000-of-00002.parquet", &first, snappy);
    write_parquet(&bench, "hf/train-00001-of-00002.parquet", &second, snappy);
    bench.run("pack hf one --threads 1").success();
    let names = ["Zoe", "Ann", "Bob"];
    let mut expected: Vec<(String, u32, &str, u8)> = (0..30)
        .map(|i: u8| {
            let (file, row) = if i < 20 { (0, i) } else { (1, i - 20) };
            let label = if i < 20 { usize::from(i % 3) } else { 2 };
            (format!("train-0000{file}-of-00002.parquet/{row}"), label as u32, names[label], i)
        })
        .collect();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(|row| (&row.0[..], row.1, row.2, row.3)).collect();
    check_rows(&bench, "one", &expected);
    bench.run("pack hf two --threads 2").success();
    assert!(bench.tree("one") == bench.tree("two"));
    assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 3);
    bench.run("pack hf/train-0000{0..1}-of-00002.parquet pattern").success();
    check_rows(&bench, "pattern", &expected);
}

#[test]
fn every_compression_of_parquet_and_both_layouts_of_arrow_give_the_same_rows() {
    let bench = Bench::new();
    let batch = faces_and_labels(0..9, |i| (2 - i % 3).into());
    let gzip = Compression::GZIP(GzipLevel::default());
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let compressions =
        [Compression::UNCOMPRESSED, Compression::SNAPPY, gzip, zstd, Compression::LZ4_RAW];
    let mut packed = Vec::new();
    for (i, compression) in compressions.into_iter().enumerate() {
        write_parquet(&bench, &format!("{i}/t"), &batch, compression);
        packed.push(format!("{i}"));
    }
    bench.write("file/t", b"");
    let mut writer =
        FileWriter::try_new(File::create(bench.path("file/t")).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    bench.write("stream/t", b"");
    let mut writer =
        StreamWriter::try_new(File::create(bench.path("stream/t")).unwrap(), &batch.schema())
            .unwrap();
    for start in [0, 4] {
        writer.write(&batch.slice(start, if start == 0 { 4 } else { 5 })).unwrap();
    }
    writer.finish().unwrap();
    packed.extend(["file".to_owned(), "stream".to_owned()]);
    let names = ["Bob", "Ann", "Zoe"];
    let sources: Vec<String> = (0..9).map(|i| format!("t/{i}")).collect();
    let expected: Vec<_> = (0..9_u8)
        .map(|i| (&sources[usize::from(i)][..], 2 - u32::from(i % 3), names[usize::from(i % 3)], i))
        .collect();
    for input in packed {
        bench.run(&format!("pack {input}/t {input}-data")).success();
        check_rows(&bench, &format!("{input}-data"), &expected);
    }
}

#[test]
fn plain_bytes_and_text_are_read_and_rows_without_image_or_label_are_quarantined() {
    let bench = Bench::new();
    let bytes = [Some(face(0)), None, Some(face(2)), Some(face(3))];
    let image: ArrayRef = Arc::new(LargeBinaryArray::from_iter(bytes));
    let who: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("a")]));
    let batch = table(vec![("identity", who), ("image", image)], None);
    write_parquet(&bench, "t.parquet", &batch, Compression::SNAPPY);
    bench.run("pack t.parquet data --max-left-out 100").success();
    check_rows(&bench, "data", &[("t.parquet/0", 1, "b", 0), ("t.parquet/3", 0, "a", 3)]);
    let reasons: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let expected = [("t.parquet/1", "no_image"), ("t.parquet/2", "no_label")];
    assert_eq!(reasons, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn damaged_tables_are_errors_and_never_panics() {
    let bench = Bench::new();
    let batch = faces_and_labels(0..3, |_| 0);
    write_parquet(&bench, "whole.parquet", &batch, Compression::SNAPPY);
    let whole = std::fs::read(bench.path("whole.parquet")).unwrap();
    bench.run("pack whole.parquet data").success();
    assert_eq!(rows(&bench, "data").len(), 3);
    // The footer and headers of pages, where a flip matters most.
    let places = (0..64).chain(whole.len() - 700..whole.len()).step_by(23);
    for at in places {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        bench.write("flipped.parquet", &flipped);
        let run = bench.run("pack flipped.parquet out --from parquet --force");
        assert_ne!(run.get_output().status.code(), Some(101), "a flip at {at}");
        assert!(run.get_output().status.code().is_some(), "a flip at {at}");
    }
}

#[test]
fn a_page_of_a_few_bytes_that_would_fill_the_memory_is_an_error() {
    let bench = Bench::new();
    // 65 MiB of zeros, which take some kilobytes.
    let zeros = vec![0; 65 << 20];
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let image = Arc::new(BinaryArray::from_vec(vec![&zeros[..]]));
    let batch =
        RecordBatch::try_from_iter([("image", image as ArrayRef), ("label", label)]).unwrap();
    write_parquet(&bench, "bomb.parquet", &batch, Compression::ZSTD(ZstdLevel::default()));
    assert!(std::fs::metadata(bench.path("bomb.parquet")).unwrap().len() < 100_000);
    let text = stderr(&bench.run("pack bomb.parquet out").code(2));
    assert!(text.contains("would unpack to") && text.contains("bomb.parquet"), "{text}");
}

#[test]
fn a_stream_that_goes_on_behind_its_end_is_not_cut_short_there() {
    let batch = faces_and_labels(0..3, |i| (i % 2).into());
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    stream.finish().unwrap();
    let stream = stream.into_inner().unwrap();
    let bench = Bench::new();
    bench.write("one.arrow", &stream);
    bench.run("pack one.arrow data").success();
    bench.write("two.arrow", &stream.repeat(2));
    let text = stderr(&bench.run("pack two.arrow out").code(2));
    assert!(text.contains("the file goes on behind the end of its stream"), "{text}");
    assert!(text.contains("hint: "), "{text}");
}

/// A bit here and a gigantic length there: whatever the bytes are, they are packed or an error that
/// names the file, and nothing of a reader's panic is printed.
#[test]
fn hostile_arrow_bytes_end_in_a_plain_error() {
    let batch = faces_and_labels(0..3, |i| (i % 2).into());
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    stream.finish().unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    file.finish().unwrap();
    let bench = Bench::new();
    let check = |name: &str, what: &str| {
        let run = bench.run(&format!("pack {name} out --force --max-left-out 100"));
        let (text, code) = (stderr(&run), run.get_output().status.code());
        assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{what}: {text}");
        assert!(matches!(code, Some(0..=2)), "{what}: {code:?} {text}");
        assert!(
            code != Some(2) || text.contains(name) && text.contains("hint: "),
            "{what}: {text}"
        );
    };
    for (name, bytes) in
        [("stream.arrow", stream.into_inner().unwrap()), ("file.arrow", file.into_inner().unwrap())]
    {
        // What describes the batches lies before the images and behind them.
        let n = bytes.len();
        let places = (8..1400).step_by(36).chain((n - 1200..n - 8).step_by(52));
        for at in places {
            for wrong in [&[0xff, 0xff, 0xff, 0x7f][..], &[1, 0, 0, 0], &[0, 0, 0, 0x80]] {
                let mut damaged = bytes.clone();
                damaged[at..at + 4].copy_from_slice(wrong);
                bench.write(name, &damaged);
                check(name, &format!("{name}, {wrong:?} at {at}"));
            }
        }
    }
    let Some(case) = pfc_testing::case("rel-arrow-panic") else { return };
    for name in ["stream.arrow", "file.arrow"] {
        bench.write(name, &std::fs::read(case.join(name)).unwrap());
        check(name, "the kept case");
        let run = bench.run(&format!("pack {name} out2")).code(2);
        assert!(stderr(&run).contains("damaged"), "{}", stderr(&run));
    }
}
