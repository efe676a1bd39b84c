//! Parquet files in the layout of Hugging Face `datasets`: `image` as a struct of bytes and path,
//! `label` as an integer whose names are in the schema's metadata, `identity` as a name.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use pfc_durable::AtomicDir;
use serde_json::json;

use super::{Feed, Item, Written, options::Shards};
use crate::{ExportError, IngestError};

/// Images per row group at most: what a reader holds in memory at least, 10 MB of crops.
const GROUP_IMAGES: usize = 1000;

/// Bytes at which a row group is closed although it has fewer images.
const GROUP_BYTES: usize = 32 << 20;

/// Bytes of all names at which labels go without: every file repeats them.
const NAME_BYTES_MAX: usize = 16 << 20;

/// Key of the metadata in which `datasets` looks for its features.
const FEATURES_KEY: &str = "huggingface";

/// The fields of an image.
static IMAGE: LazyLock<Fields> = LazyLock::new(|| {
    let field = |name, kind| Field::new(name, kind, true);
    Fields::from(vec![field("bytes", DataType::Binary), field("path", DataType::Utf8)])
});

/// Fills the folder `dir` and commits it.
///
/// # Errors
///
/// [`IngestError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, dir: AtomicDir, shards: &Shards) -> Result<Written, IngestError> {
    let labels = feed.labels()?;
    let features = features(&feed.names_by_label());
    let out = dir.target().path().to_path_buf();
    let data = dir.path().join("data");
    fs::create_dir(&data).map_err(IngestError::at("create", &data))?;
    let mut writer = Writer {
        dir: data,
        shards,
        schema: schema(&features),
        properties: properties(features),
        open: None,
        group: Group::default(),
        n_files: 0,
    };
    for item in feed.items() {
        writer.push(item?)?;
    }
    writer.finish()?;
    dir.commit()?;
    let (files, bytes) = super::summary::measure(&out.join("data"))?;
    let (images, identities) = (feed.len() as u64, labels.len() as u64);
    Ok(Written { images, identities, files, bytes, ..Written::default() })
}

/// What `datasets` is told of the columns.
fn features(names: &[&str]) -> String {
    let bytes: usize = names.iter().map(|name| name.len()).sum();
    // It refuses names that occur twice.
    let has_names =
        bytes <= NAME_BYTES_MAX && names.iter().collect::<HashSet<_>>().len() == names.len();
    let label = match has_names {
        true => json!({"names": names, "_type": "ClassLabel"}),
        false => json!({"dtype": "int64", "_type": "Value"}),
    };
    let features = json!({
        "image": {"_type": "Image"},
        "label": label,
        "identity": {"dtype": "string", "_type": "Value"},
    });
    json!({"info": {"features": features}}).to_string()
}

fn schema(features: &str) -> SchemaRef {
    let fields = vec![
        Field::new("image", DataType::Struct(IMAGE.clone()), true),
        Field::new("label", DataType::Int64, true),
        Field::new("identity", DataType::Utf8, true),
    ];
    let metadata = HashMap::from([(FEATURES_KEY.to_owned(), features.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

fn properties(features: String) -> WriterProperties {
    let bytes = || ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]);
    // JPEG neither compresses nor repeats, and the least of all images tells nobody anything.
    WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(bytes(), false)
        .set_column_statistics_enabled(bytes(), EnabledStatistics::None)
        .set_key_value_metadata(Some(vec![KeyValue::new(FEATURES_KEY.to_owned(), features)]))
        .build()
}

struct Writer<'a> {
    dir: PathBuf,
    shards: &'a Shards,
    schema: SchemaRef,
    properties: WriterProperties,
    open: Option<Shard>,
    group: Group<'a>,
    n_files: usize,
}

struct Shard {
    path: PathBuf,
    parquet: ArrowWriter<File>,
    bytes: u64,
}

/// Images of one row group, borrowed from the memory map.
#[derive(Default)]
struct Group<'a> {
    items: Vec<Item<'a>>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    fn push(&mut self, item: Item<'a>) -> Result<(), IngestError> {
        let bytes = item.face.image.len() + item.face.source.len() + item.identity.len();
        let waiting = (self.group.bytes + bytes) as u64;
        if self.open.as_ref().is_some_and(|s| s.bytes + waiting > self.shards.bytes_max) {
            self.write_group()?;
            self.close()?;
        }
        self.group.items.push(item);
        self.group.bytes += bytes;
        let is_full = self.group.items.len() == GROUP_IMAGES || self.group.bytes >= GROUP_BYTES;
        let fills_shard = self.group.bytes as u64 >= self.shards.bytes_max;
        if is_full || fills_shard { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), IngestError> {
        let Group { items, bytes } = std::mem::take(&mut self.group);
        if items.is_empty() {
            return Ok(());
        }
        let schema = self.schema.clone();
        let shard = self.shard()?;
        let at = |source| ExportError::Parquet { path: shard.path.clone(), source };
        let batch = batch(&schema, &items).map_err(|e| at(e.into()))?;
        shard.parquet.write(&batch).and_then(|()| shard.parquet.flush()).map_err(at)?;
        shard.bytes += bytes as u64;
        Ok(())
    }

    /// The open file, or a new one.
    fn shard(&mut self) -> Result<&mut Shard, IngestError> {
        if self.open.is_none() {
            let name = temporary_name(self.n_files);
            // Its final name depends on how many there will be.
            let path = self.dir.join(name);
            let file = File::create_new(&path);
            let file = file.map_err(IngestError::at("create", &path))?;
            let parquet =
                ArrowWriter::try_new(file, self.schema.clone(), Some(self.properties.clone()));
            let parquet =
                parquet.map_err(|source| ExportError::Parquet { path: path.clone(), source })?;
            self.open = Some(Shard { path, parquet, bytes: 0 });
            self.n_files += 1;
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    fn close(&mut self) -> Result<(), IngestError> {
        let Some(Shard { path, parquet, .. }) = self.open.take() else { return Ok(()) };
        parquet.close().map_err(|source| ExportError::Parquet { path, source })?;
        Ok(())
    }

    /// Ends the last file, and names all of them now that their number is known.
    fn finish(mut self) -> Result<(), IngestError> {
        self.write_group()?;
        self.close()?;
        for i in 0..self.n_files {
            let name = format!("{}-{i:05}-of-{:05}.parquet", self.shards.name, self.n_files);
            let path = self.dir.join(name);
            fs::rename(self.dir.join(temporary_name(i)), &path)
                .map_err(IngestError::at("rename", &path))?;
        }
        Ok(())
    }
}

fn temporary_name(i: usize) -> String {
    format!("{i}.tmp")
}

fn batch(schema: &SchemaRef, items: &[Item<'_>]) -> Result<RecordBatch, ArrowError> {
    let images = BinaryArray::from_iter_values(items.iter().map(|item| item.face.image));
    let paths = StringArray::from_iter_values(items.iter().map(|item| item.face.source));
    let columns: Vec<ArrayRef> = vec![Arc::new(images), Arc::new(paths)];
    let images = StructArray::try_new(IMAGE.clone(), columns, None)?;
    let labels = Int64Array::from_iter_values(items.iter().map(|item| item.label.into()));
    let identities = StringArray::from_iter_values(items.iter().map(|item| item.identity));
    let columns: Vec<ArrayRef> = vec![Arc::new(images), Arc::new(labels), Arc::new(identities)];
    RecordBatch::try_new(schema.clone(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_without_names_where_two_are_the_same() {
        let label = |names: &[&str]| {
            let features: serde_json::Value = serde_json::from_str(&features(names)).unwrap();
            features["info"]["features"]["label"].clone()
        };
        assert_eq!(label(&["a", "b"]), json!({"names": ["a", "b"], "_type": "ClassLabel"}));
        assert_eq!(label(&["a", "a"]), json!({"dtype": "int64", "_type": "Value"}));
    }
}
