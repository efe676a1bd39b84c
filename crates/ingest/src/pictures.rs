//! Faces of a data set on pages.

use pfc_report::html::{Markup, data_uri, html};
use pfc_shard::Dataset;

use crate::IngestError;

/// The face of a row as an element of a page, with its bytes as they are stored.
///
/// # Errors
///
/// [`IngestError::Shard`] if the row cannot be read.
pub fn picture(dataset: &Dataset, row: u64) -> Result<Markup, IngestError> {
    let face = dataset.get(row)?;
    Ok(html! {
        img.small decoding="async" width=(face.width) height=(face.height) alt={ "row " (row) }
            src=(data_uri(face.image));
    })
}
