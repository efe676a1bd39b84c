//! Small tables beside the shards, in files as the shards are: Arrow IPC, not compressed.
//!
//! Their reader trusts nothing, as that of the shards: it holds every length and offset against the
//! bytes that are there before anything is decoded.

use std::{collections::HashMap, path::Path, sync::Arc};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};

pub use crate::ipc_writer::IpcWriter as TableWriter;
use crate::{ShardError, ipc, mmap, schema};

/// A schema of columns without nulls, marked with the version of the format.
pub fn schema<const N: usize>(columns: [(&str, DataType); N]) -> SchemaRef {
    schema::schema(columns)
}

/// `schema` with more metadata.
pub fn with_metadata(
    schema: &SchemaRef,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> SchemaRef {
    let mut all: HashMap<String, String> = schema.metadata().clone().into();
    all.extend(metadata);
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), all))
}

/// A table, memory-mapped.
#[derive(Debug)]
pub struct Table {
    /// What the schema says besides the columns.
    pub metadata: HashMap<String, String>,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl Table {
    /// Opens a table with the columns of `expected` and checks its structure.
    ///
    /// # Errors
    ///
    /// [`ShardError::MissingFile`], [`ShardError::Malformed`], [`ShardError::Schema`],
    /// [`ShardError::UnsupportedFormat`] or [`ShardError::Durable`].
    pub fn open(path: &Path, expected: &SchemaRef) -> Result<Table, ShardError> {
        let buffer = mmap::buffer(&mmap::open(path)?);
        let batches = ipc::read_batches(path, &buffer, expected)?;
        let bad = |what| ShardError::Malformed { path: path.to_path_buf(), what };
        let metadata = ipc::metadata(&buffer).map_err(bad)?;
        Ok(Table { metadata, batches })
    }
}

/// A column by name, if it has the type asked for. Shares its buffers.
pub fn column<A: Array + Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<A> {
    batch.column_by_name(name)?.as_any().downcast_ref::<A>().cloned()
}
