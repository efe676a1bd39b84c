//! The columns of an image table, in the layouts that Hugging Face's libraries write.

use arrow_array::{
    Array, BinaryArray, BinaryViewArray, Int8Array, Int16Array, Int32Array, Int64Array,
    LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray, StructArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array, cast::AsArray,
};
use arrow_schema::{DataType, Schema};
use serde::Deserialize;

use crate::catalogue::Who;

/// Where a schema has what.
#[derive(Debug, Clone)]
pub struct Columns {
    image: String,
    label: Option<String>,
    identity: Option<String>,
    /// What the integers of `label` stand for, by Hugging Face's `ClassLabel`.
    class_names: Vec<String>,
}

/// What one row holds.
#[derive(Debug, PartialEq)]
pub enum RowImage<'a> {
    /// An encoded image.
    Bytes(&'a [u8]),
    /// Nothing but, perhaps, a path to a file that was left elsewhere.
    Missing,
}

impl Columns {
    /// Finds the columns `image`, `label` and `identity`.
    ///
    /// * `features`: the JSON that Hugging Face keeps under the key `huggingface`, if there is any
    ///
    /// # Errors
    ///
    /// What is missing, or of a type that is not read.
    pub fn find(schema: &Schema, features: Option<&str>) -> Result<Columns, String> {
        let named = || {
            let names: Vec<String> =
                schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            names.join(", ")
        };
        let Ok(image) = schema.field_with_name("image") else {
            return Err(format!("no column `image` among {}", named()));
        };
        if !is_image(image.data_type()) {
            let found = image.data_type();
            return Err(format!("column `image` holds {found}, not encoded images"));
        }
        let optional = |name: &str| match schema.field_with_name(name) {
            Err(_) => Ok(None),
            Ok(field) if is_label(field.data_type()) => Ok(Some(name.to_owned())),
            Ok(field) => {
                Err(format!("column `{name}` holds {}, not integers or text", field.data_type()))
            }
        };
        let (label, identity) = (optional("label")?, optional("identity")?);
        if label.is_none() && identity.is_none() {
            return Err(format!("no column `label` or `identity` among {}", named()));
        }
        let class_names = features.map(class_names).transpose()?.unwrap_or_default();
        Ok(Columns { image: "image".into(), label, identity, class_names })
    }

    /// The names of the leaf columns that are read.
    pub fn needed(&self, leaf: &str) -> bool {
        let is = |column: &Option<String>| column.as_deref() == Some(leaf);
        leaf == self.image || leaf == "image.bytes" || is(&self.label) || is(&self.identity)
    }

    /// The rows of a batch: image, and whose it is or why nobody's.
    ///
    /// # Errors
    ///
    /// That the batch lacks a column.
    pub fn rows<'a>(
        &'a self,
        batch: &'a RecordBatch,
    ) -> Result<impl Iterator<Item = (RowImage<'a>, Result<Who, String>)>, String> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| format!("a batch without column `{name}`"))
        };
        let image = Images::of(column(&self.image)?.as_ref())?;
        let label = self.label.as_deref().map(column).transpose()?;
        let identity = self.identity.as_deref().map(column).transpose()?;
        Ok((0..batch.num_rows()).map(move |row| {
            let label = label.map(|column| text(column.as_ref(), row));
            let identity = identity.map(|column| text(column.as_ref(), row));
            (image.get(row), self.who(label, identity))
        }))
    }

    /// * `label`, `identity`: the values of those columns that there are, `None` where they are null
    fn who(
        &self,
        label: Option<Option<String>>,
        identity: Option<Option<String>>,
    ) -> Result<Who, String> {
        let null = || "its label is null".to_owned();
        let label = label.map(|value| value.ok_or_else(null)).transpose()?;
        let identity = identity.map(|value| value.ok_or_else(null)).transpose()?;
        match (&label, &identity) {
            (Some(label), None) if !self.class_names.is_empty() => {
                // Negative labels, which stand for none, are refused by `Who`.
                let class = label.parse::<usize>().ok();
                match (class, class.and_then(|class| self.class_names.get(class))) {
                    (Some(_), Some(name)) => Who::parse(Some(label), Some(name)),
                    (Some(class), None) => {
                        let n = self.class_names.len();
                        Err(format!("its label is {class}, and there are {n} class names"))
                    }
                    (None, _) => Who::parse(Some(label), None),
                }
            }
            _ => Who::parse(label.as_deref(), identity.as_deref()),
        }
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_image(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => {
            fields.iter().any(|field| field.name() == "bytes" && is_bytes(field.data_type()))
        }
        plain => is_bytes(plain),
    }
}

fn is_label(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_label(values),
        other => other.is_integer(),
    }
}

/// An image column, whatever it is made of.
enum Images<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    /// The column `bytes` of structs, any of which may be null.
    Of(&'a StructArray, Box<Images<'a>>),
}

impl<'a> Images<'a> {
    fn of(array: &'a dyn Array) -> Result<Images<'a>, String> {
        let other = || format!("a batch whose images are {}", array.data_type());
        match array.data_type() {
            DataType::Binary => Ok(Images::Small(array.as_binary())),
            DataType::LargeBinary => Ok(Images::Large(array.as_binary())),
            DataType::BinaryView => Ok(Images::View(array.as_binary_view())),
            DataType::Struct(_) => {
                let structs = array.as_struct();
                let bytes = structs.column_by_name("bytes").ok_or_else(other)?;
                if !is_bytes(bytes.data_type()) {
                    return Err(other());
                }
                Ok(Images::Of(structs, Box::new(Images::of(bytes.as_ref())?)))
            }
            _ => Err(other()),
        }
    }

    fn get(&self, row: usize) -> RowImage<'a> {
        match self {
            Images::Small(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::Large(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::View(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::Of(structs, bytes) if structs.is_valid(row) => bytes.get(row),
            _ => RowImage::Missing,
        }
    }
}

/// An integer or text as text; `None` if it is null.
fn text(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    macro_rules! either {
        ($($array:ty),*) => {
            $(if let Some(array) = array.as_any().downcast_ref::<$array>() {
                return Some(array.value(row).to_string());
            })*
        };
    }
    either!(Int64Array, Int32Array, StringArray, LargeStringArray, StringViewArray);
    either!(UInt64Array, UInt32Array, Int16Array, Int8Array, UInt16Array, UInt8Array);
    let dictionary = array.as_any_dictionary_opt()?;
    let key = text(dictionary.keys(), row)?.parse().ok();
    let key = key.filter(|key: &usize| *key < dictionary.values().len())?;
    text(dictionary.values().as_ref(), key)
}

/// The names of the classes of column `label`, from Hugging Face's description; empty without any.
fn class_names(features: &str) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Description {
        info: Option<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        features: Option<Features>,
    }
    #[derive(Deserialize)]
    struct Features {
        label: Option<Feature>,
    }
    #[derive(Deserialize)]
    struct Feature {
        #[serde(rename = "_type")]
        kind: Option<String>,
        names: Option<Vec<String>>,
    }
    let description: Description = serde_json::from_str(features)
        .map_err(|e| format!("its description under `huggingface`: {e}"))?;
    let label = description.info.and_then(|info| info.features).and_then(|f| f.label);
    let label = label.filter(|label| label.kind.as_deref() == Some("ClassLabel"));
    Ok(label.and_then(|label| label.names).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, DictionaryArray, types::Int8Type};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    fn whose(batch: &RecordBatch, features: Option<&str>) -> Vec<Result<Who, String>> {
        let columns = Columns::find(&batch.schema(), features).unwrap();
        columns.rows(batch).unwrap().map(|(_, who)| who).collect()
    }

    fn images() -> ArrayRef {
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"a"), None, Some(b"c")]))
    }

    #[test]
    fn labels_of_every_type_are_read() {
        let numbers = [Ok(Who::Number(3)), Err("its label is null".into()), Ok(Who::Number(127))];
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(3), None, Some(127)])),
            Arc::new(UInt8Array::from(vec![Some(3), None, Some(127)])),
            Arc::new(LargeStringArray::from(vec![Some("3"), None, Some("127")])),
        ];
        for label in columns {
            assert_eq!(whose(&batch(vec![("image", images()), ("label", label)]), None), numbers);
        }
        let names: DictionaryArray<Int8Type> = vec!["b", "a", "b"].into_iter().collect();
        let found = whose(&batch(vec![("image", images()), ("identity", Arc::new(names))]), None);
        assert_eq!(found, ["b", "a", "b"].map(|name| Ok(Who::Name(name.into()))));
    }

    #[test]
    fn class_labels_take_the_names_of_hugging_face() {
        let features = r#"{"info": {"features": {"image": {"_type": "Image"},
            "label": {"names": ["Ann", "Bob"], "_type": "ClassLabel"}}}}"#;
        let label: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, -1]));
        let found = whose(&batch(vec![("image", images()), ("label", label)]), Some(features));
        let expected = [
            Ok(Who::Both(1, "Bob".into())),
            Err("its label is 2, and there are 2 class names".into()),
            Err("label -1 is negative, so the image is nobody's".into()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn images_are_binary_or_the_bytes_of_structs() {
        let plain =
            batch(vec![("image", images()), ("label", Arc::new(Int8Array::from(vec![0; 3])))]);
        let bytes = arrow_schema::Field::new("bytes", DataType::Binary, true);
        let structs = StructArray::from(vec![(Arc::new(bytes), images())]);
        let nested = batch(vec![
            ("image", Arc::new(structs)),
            ("label", Arc::new(Int8Array::from(vec![0; 3]))),
        ]);
        for batch in [plain, nested] {
            let columns = Columns::find(&batch.schema(), None).unwrap();
            let found: Vec<_> = columns.rows(&batch).unwrap().map(|(image, _)| image).collect();
            assert_eq!(found, [RowImage::Bytes(b"a"), RowImage::Missing, RowImage::Bytes(b"c")]);
        }
    }

    #[test]
    fn what_a_table_lacks_is_said_with_what_it_has() {
        let check = |columns, expected: &str| {
            let error = Columns::find(&batch(columns).schema(), None).unwrap_err();
            assert_eq!(error, expected);
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0; 3]));
        check(
            vec![("img", images()), ("label", numbers.clone())],
            "no column `image` among `img`, `label`",
        );
        check(
            vec![("image", images()), ("class", numbers.clone())],
            "no column `label` or `identity` among `image`, `class`",
        );
        check(
            vec![("image", numbers.clone()), ("label", numbers)],
            "column `image` holds Int64, not encoded images",
        );
        check(
            vec![("image", images()), ("label", images())],
            "column `label` holds Binary, not integers or text",
        );
    }
}
