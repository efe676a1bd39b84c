//! The columns of format 1.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::format::FORMAT;

/// Key of the schema's metadata that carries the version of the format.
pub(crate) const FORMAT_KEY: &str = "pfc.format";

/// Bytes of a content hash; stored big-endian, so that its hexadecimal digits read as usual.
pub(crate) const HASH_BYTES: i32 = 16;

/// Columns of a shard.
///
/// `image` has 32-bit offsets: a record batch holds far less than 2 GiB, and every reader of Arrow
/// takes them.
pub(crate) static FACES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema([
        ("image", DataType::Binary),
        ("label", DataType::UInt32),
        ("source", DataType::Utf8),
        ("width", DataType::UInt16),
        ("height", DataType::UInt16),
        ("hash", DataType::FixedSizeBinary(HASH_BYTES)),
        ("sharpness", DataType::Float32),
        ("brightness", DataType::Float32),
        ("contrast", DataType::Float32),
    ])
});

/// Columns of the table of identities.
pub(crate) static IDENTITIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema([
        ("label", DataType::UInt32),
        ("names", DataType::List(name_field())),
        ("n_images", DataType::UInt64),
    ])
});

/// The items of column `names`.
pub(crate) fn name_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Utf8, false))
}

/// A schema of the format's version.
pub(crate) fn schema<const N: usize>(columns: [(&str, DataType); N]) -> SchemaRef {
    let fields: Vec<Field> = columns.map(|(name, kind)| Field::new(name, kind, false)).into();
    let format = [(FORMAT_KEY.to_owned(), FORMAT.to_string())];
    Arc::new(Schema::new_with_metadata(fields, std::collections::HashMap::from(format)))
}

/// Whether columns agree in name, type, order, and in not being nullable.
pub(crate) fn same_columns(found: &Schema, expected: &Schema) -> bool {
    let column = |f: &Arc<Field>| (f.name().clone(), f.data_type().clone(), f.is_nullable());
    found.fields().iter().map(column).eq(expected.fields().iter().map(column))
}

/// `image Binary, label UInt32, ...`, for messages.
pub(crate) fn describe(schema: &Schema) -> String {
    // A foreign file may have any number of columns with names of any length.
    const COLUMNS_MAX: usize = 16;
    let column = |f: &Arc<Field>| {
        let name: String = f.name().chars().take(32).collect();
        let nullable = if f.is_nullable() { " nullable" } else { "" };
        format!("{name} {}{nullable}", f.data_type())
    };
    let mut columns: Vec<String> = schema.fields().iter().take(COLUMNS_MAX).map(column).collect();
    if schema.fields().len() > COLUMNS_MAX {
        columns.push("...".into());
    }
    columns.join(", ")
}
