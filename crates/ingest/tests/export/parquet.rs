//! `--to parquet`, read back with the reader of the `parquet` crate.

use std::{
    collections::BTreeMap,
    fs::{self, File},
};

use arrow_array::{Array, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::{
    common::Bench,
    sets::{images, made, numbered, synthetic},
};

fn read(bench: &Bench, path: &str) -> (Schema, Vec<RecordBatch>) {
    let file = File::open(bench.path(path)).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = builder.schema().as_ref().clone();
    (schema, builder.build().unwrap().map(Result::unwrap).collect())
}

fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> &'a T {
    batch.column_by_name(name).unwrap().as_any().downcast_ref().unwrap()
}

/// Bytes, path, label, identity of every row.
fn rows(batches: &[RecordBatch]) -> Vec<(Vec<u8>, String, i64, String)> {
    let mut rows = Vec::new();
    for batch in batches {
        let image: &StructArray = column(batch, "image");
        let bytes: &BinaryArray =
            image.column_by_name("bytes").unwrap().as_any().downcast_ref().unwrap();
        let path: &StringArray =
            image.column_by_name("path").unwrap().as_any().downcast_ref().unwrap();
        let (label, identity): (&Int64Array, &StringArray) =
            (column(batch, "label"), column(batch, "identity"));
        rows.extend((0..batch.num_rows()).map(|i| {
            let (path, identity) = (path.value(i).to_owned(), identity.value(i).to_owned());
            (bytes.value(i).to_vec(), path, label.value(i), identity)
        }));
    }
    rows
}

#[test]
fn the_columns_and_metadata_are_those_of_hugging_face_images() {
    let bench = made(&["a", "b"], &[(1, "b/7.png"), (0, "a/1.jpg")]);
    bench.run("export data hf --to parquet").success();
    let (schema, batches) = read(&bench, "hf/data/train-00000-of-00001.parquet");
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["image", "label", "identity"]);
    let DataType::Struct(image) = schema.field(0).data_type() else { panic!("no struct") };
    let image: Vec<_> = image.iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(image, [("bytes", DataType::Binary), ("path", DataType::Utf8)]);
    let features: serde_json::Value =
        serde_json::from_str(&schema.metadata["huggingface"]).unwrap();
    let expected = json!({"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"names": ["a", "b"], "_type": "ClassLabel"},
        "identity": {"dtype": "string", "_type": "Value"},
    }}});
    assert_eq!(features, expected);
    let expected = [
        (numbered(0), "b/7.png".to_owned(), 1, "b".to_owned()),
        (numbered(1), "a/1.jpg".to_owned(), 0, "a".to_owned()),
    ];
    assert_eq!(rows(&batches), expected);
}

#[test]
fn files_are_numbered_of_their_total_and_hold_every_image_once() {
    let bench = Bench::new();
    bench.run("synth faces --identities 40 --images-per-identity 12").success();
    bench.run("pack faces data").success();
    bench.run("export data hf --to parquet --shard-mib 1 --name test").success();
    let files = bench.tree("hf");
    let n = files.len();
    assert!(n > 1, "{n} files");
    let mut found = BTreeMap::new();
    for (i, name) in files.keys().enumerate() {
        assert_eq!(name.to_str().unwrap(), format!("data/test-{i:05}-of-{n:05}.parquet"));
        let bytes = fs::metadata(bench.path("hf").join(name)).unwrap().len();
        // The schema and the footer come on top of the images.
        assert!(bytes < (1 << 20) + (64 << 10), "{bytes} bytes");
        let (_, batches) = read(&bench, &format!("hf/{}", name.display()));
        for (bytes, _, label, identity) in rows(&batches) {
            found.insert(bytes, (u32::try_from(label).unwrap(), identity));
        }
    }
    assert!(found == images(&bench.dataset("data")));
}

#[test]
fn kept_labels_have_the_names_of_all_identities_up_to_the_last() {
    let bench = synthetic();
    let names = |out: &str, options: &str| {
        bench.run(&format!("export data {out} --to parquet --label 2..4 {options}")).success();
        let (schema, _) = read(&bench, &format!("{out}/data/train-00000-of-00001.parquet"));
        let features: serde_json::Value =
            serde_json::from_str(&schema.metadata["huggingface"]).unwrap();
        features["info"]["features"]["label"]["names"].as_array().unwrap().len()
    };
    assert_eq!(names("new", ""), 2);
    assert_eq!(names("kept", "--keep-labels"), 4);
}

#[test]
fn two_runs_give_the_same_bytes() {
    let bench = synthetic();
    bench.run("export data one --to parquet --threads 1").success();
    bench.run("export data two --to parquet --threads 2").success();
    assert!(bench.tree("one") == bench.tree("two"));
}
