//! The columns of an image table, in the layouts that Hugging Face's libraries write.

use std::collections::HashMap;

use arrow_array::{
    Array, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, Decimal256Array,
    Float16Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray, StructArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array, cast::AsArray,
};
use arrow_schema::{DataType, Schema};
use serde::Deserialize;

use crate::{
    catalogue::People,
    column_names::is_image_column,
    columns::ColumnChoice,
    label::{Value, Who},
};

/// The columns of a schema that are used.
#[derive(Debug, Clone)]
pub struct Columns {
    image: String,
    label: Option<String>,
    identity: Option<String>,
    /// What the integers of `label` stand for, by Hugging Face's `ClassLabel`.
    class_names: Vec<String>,
    guess: Option<String>,
}

/// The content of one row.
#[derive(Debug, PartialEq)]
pub enum RowImage<'a> {
    /// An encoded image.
    Bytes(&'a [u8]),
    /// The path of a file.
    Path(&'a str),
    /// Nothing.
    Missing,
}

impl Columns {
    /// Finds the columns of images, labels and identities, by the user's word or their names.
    ///
    /// * `features`: the JSON that Hugging Face keeps under the key `huggingface`, if there is any
    /// * `people`: where they are optional, so are the columns of labels and identities
    ///
    /// # Errors
    ///
    /// What is missing, or of a type that is not read.
    pub fn find(
        schema: &Schema,
        features: Option<&str>,
        choice: &ColumnChoice,
        people: People,
    ) -> Result<Columns, String> {
        let names: Vec<String> =
            schema.fields().iter().map(|field| field.name().to_owned()).collect();
        let named = || {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        let is_of = |name: &str, is: fn(&DataType) -> bool| {
            schema.field_with_name(name).is_ok_and(|field| is(field.data_type()))
        };
        // A column of another type is another column, unless it is asked for or the only one; and beside
        // images a path says where they came from.
        let has_images = names.iter().any(|name| is_image_column(name) && is_of(name, is_stored));
        let usable: Vec<String> = names
            .iter()
            .map(|name| {
                let is_usable = is_of(name, is_image) || is_of(name, is_label);
                let is_beside = has_images && is_image_column(name) && !is_of(name, is_stored);
                if is_usable && !is_beside { name.clone() } else { String::new() }
            })
            .collect();
        let found = match choice.is_empty() {
            true => choice.find(&usable, people)?.or(choice.find(&names, people)?),
            false => choice.find(&names, people)?,
        };
        let Some(found) = found else {
            let has_image = names.iter().any(|name| is_of(name, is_image));
            return Err(match has_image && (names.iter().any(|name| name == "image")) {
                true => format!("no column `label` or `identity` among {}", named()),
                false => format!("no column `image` among {}", named()),
            });
        };
        let name = |column: usize| names[column].clone();
        let image = name(found.image);
        if !is_of(&image, is_image) {
            let found = schema.field(found.image).data_type();
            return Err(format!(
                "column `{image}` holds {found}, not encoded images or their paths"
            ));
        }
        for column in [found.label, found.identity].into_iter().flatten() {
            let field = schema.field(column);
            if !is_label(field.data_type()) {
                let (name, found) = (field.name(), field.data_type());
                return Err(format!("column `{name}` holds {found}, not numbers or text"));
            }
        }
        let class_names = match &found.label {
            Some(label) => {
                let names = features.map(|features| class_names(features, &names[*label]));
                names.transpose()?.unwrap_or_default()
            }
            None => Vec::new(),
        };
        let guess = (!found.is_plain).then(|| found.describe(&names));
        let (label, identity) = (found.label.map(name), found.identity.map(name));
        Ok(Columns { image, label, identity, class_names, guess })
    }

    /// What columns were taken for what, where that was a guess.
    pub fn guess(&self) -> Option<&str> {
        self.guess.as_deref()
    }

    /// The names of the leaf columns that are read.
    pub fn needed(&self, leaf: &str) -> bool {
        let is = |column: &Option<String>| column.as_deref() == Some(leaf);
        leaf == self.image
            || leaf.strip_suffix(".bytes") == Some(&self.image)
            || leaf.strip_suffix(".path") == Some(&self.image)
            || is(&self.label)
            || is(&self.identity)
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
            let label = label.map(|column| Cell::of(column.as_ref(), row));
            let identity = identity.map(|column| Cell::of(column.as_ref(), row));
            (image.get(row), self.who(label.as_ref(), identity.as_ref()))
        }))
    }

    /// * `label`, `identity`: the values of those columns that there are
    fn who(&self, label: Option<&Cell>, identity: Option<&Cell>) -> Result<Who, String> {
        let who = Who::of(label.map(Cell::value), identity.map(Cell::value))?;
        match who {
            Who::Number(class) if identity.is_none() && !self.class_names.is_empty() => {
                let name = usize::try_from(class).ok().and_then(|i| self.class_names.get(i));
                let name = name.ok_or_else(|| {
                    let n = self.class_names.len();
                    format!("its label is {class}, and there are {n} class names")
                })?;
                Who::of(label.map(Cell::value), Some(Value::Text(name)))
            }
            who => Ok(who),
        }
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Encoded images, or the paths of their files.
fn is_image(data_type: &DataType) -> bool {
    is_stored(data_type) || is_text(data_type)
}

fn is_stored(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => {
            fields.iter().any(|field| field.name() == "bytes" && is_bytes(field.data_type()))
                || fields.iter().any(|field| field.name() == "path" && is_text(field.data_type()))
        }
        plain => is_bytes(plain),
    }
}

fn is_label(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_label(values),
        DataType::Boolean => true,
        other => other.is_numeric(),
    }
}

/// An image column, whatever it is made of.
enum Images<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    /// Paths of files.
    Paths(&'a dyn Array),
    /// The columns `bytes` and `path` of structs, any of which may be null or lack.
    Of(&'a StructArray, Option<Box<Images<'a>>>, Option<Box<Images<'a>>>),
}

impl<'a> Images<'a> {
    fn of(array: &'a dyn Array) -> Result<Images<'a>, String> {
        let other = || format!("a batch whose images are {}", array.data_type());
        match array.data_type() {
            DataType::Binary => Ok(Images::Small(array.as_binary())),
            DataType::LargeBinary => Ok(Images::Large(array.as_binary())),
            DataType::BinaryView => Ok(Images::View(array.as_binary_view())),
            text if is_text(text) => Ok(Images::Paths(array)),
            DataType::Struct(_) => {
                let structs = array.as_struct();
                let part = |name: &str, is: fn(&DataType) -> bool| {
                    let part = structs.column_by_name(name).filter(|part| is(part.data_type()));
                    part.map(|part| Images::of(part.as_ref()).map(Box::new)).transpose()
                };
                match (part("bytes", is_bytes)?, part("path", is_text)?) {
                    (None, None) => Err(other()),
                    (bytes, path) => Ok(Images::Of(structs, bytes, path)),
                }
            }
            _ => Err(other()),
        }
    }

    fn get(&self, row: usize) -> RowImage<'a> {
        match self {
            Images::Small(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::Large(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::View(array) if array.is_valid(row) => RowImage::Bytes(array.value(row)),
            Images::Paths(array) if array.is_valid(row) => {
                let path = match array.data_type() {
                    DataType::Utf8 => array.as_string::<i32>().value(row),
                    DataType::LargeUtf8 => array.as_string::<i64>().value(row),
                    _ => array.as_string_view().value(row),
                };
                if path.is_empty() { RowImage::Missing } else { RowImage::Path(path) }
            }
            Images::Of(structs, bytes, path) if structs.is_valid(row) => {
                let get = |part: &Option<Box<Images<'a>>>| {
                    part.as_ref().map_or(RowImage::Missing, |part| part.get(row))
                };
                match get(bytes) {
                    RowImage::Missing => get(path),
                    image => image,
                }
            }
            _ => RowImage::Missing,
        }
    }
}

/// One value of a label column.
enum Cell {
    Missing,
    Integer(i128),
    Float(f64),
    Text(String),
}

impl Cell {
    fn of(array: &dyn Array, row: usize) -> Cell {
        if array.is_null(row) {
            return Cell::Missing;
        }
        macro_rules! either {
            ($cell:ident: $($array:ty),*) => {
                $(if let Some(array) = array.as_any().downcast_ref::<$array>() {
                    return Cell::$cell(array.value(row).into());
                })*
            };
        }
        either!(Integer: Int64Array, Int32Array, UInt64Array, UInt32Array);
        either!(Integer: Int16Array, Int8Array, UInt16Array, UInt8Array);
        either!(Text: StringArray, LargeStringArray, StringViewArray);
        if let Some(array) = array.as_any().downcast_ref::<BooleanArray>() {
            return Cell::Integer(array.value(row).into());
        }
        either!(Float: Float64Array, Float32Array, Float16Array);
        if let Some(array) = array.as_any().downcast_ref::<Decimal128Array>() {
            return Cell::Text(array.value_as_string(row));
        }
        if let Some(array) = array.as_any().downcast_ref::<Decimal256Array>() {
            return Cell::Text(array.value_as_string(row));
        }
        let Some(dictionary) = array.as_any_dictionary_opt() else { return Cell::Missing };
        match Cell::of(dictionary.keys(), row) {
            Cell::Integer(key) => match usize::try_from(key) {
                Ok(key) if key < dictionary.values().len() => {
                    Cell::of(dictionary.values().as_ref(), key)
                }
                _ => Cell::Missing,
            },
            _ => Cell::Missing,
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Cell::Missing => Value::Missing,
            Cell::Integer(number) => Value::Integer(*number),
            Cell::Float(number) => Value::Float(*number),
            Cell::Text(text) => Value::Text(text),
        }
    }
}

/// The names of the classes of a column, from Hugging Face's description; empty without any.
fn class_names(features: &str, column: &str) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Description {
        info: Option<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        features: Option<HashMap<String, serde_json::Value>>,
    }
    #[derive(Deserialize)]
    struct Feature {
        #[serde(rename = "_type")]
        kind: Option<String>,
        names: Option<Vec<String>>,
    }
    let description: Description = serde_json::from_str(features)
        .map_err(|e| format!("its description under `huggingface`: {e}"))?;
    let features = description.info.and_then(|info| info.features);
    let feature = features.and_then(|mut features| features.remove(column));
    // A description of another shape is that of another kind of column.
    let feature = feature.and_then(|feature| serde_json::from_value::<Feature>(feature).ok());
    let label = feature.filter(|label| label.kind.as_deref() == Some("ClassLabel"));
    Ok(label.and_then(|label| label.names).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, DictionaryArray, types::Int8Type};

    use super::*;

    fn find(
        batch: &RecordBatch,
        features: Option<&str>,
        choice: &ColumnChoice,
    ) -> Result<Columns, String> {
        Columns::find(&batch.schema(), features, choice, People::Needed)
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    fn whose(batch: &RecordBatch, features: Option<&str>) -> Vec<Result<Who, String>> {
        let columns = find(batch, features, &ColumnChoice::default()).unwrap();
        columns.rows(batch).unwrap().map(|(_, who)| who).collect()
    }

    fn images() -> ArrayRef {
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"a"), None, Some(b"c")]))
    }

    #[test]
    fn labels_of_every_type_are_read() {
        let numbers =
            [Ok(Who::Number(3)), Err("the label is missing".into()), Ok(Who::Number(127))];
        let columns: [ArrayRef; 8] = [
            Arc::new(Float64Array::from(vec![Some(3.0), None, Some(127.0)])),
            Arc::new(Float32Array::from(vec![Some(3.0), None, Some(127.0)])),
            Arc::new(
                Decimal128Array::from(vec![Some(30), None, Some(1270)])
                    .with_precision_and_scale(9, 1)
                    .unwrap(),
            ),
            Arc::new(StringViewArray::from(vec![Some("3.0"), None, Some("+127")])),
            Arc::new(UInt64Array::from(vec![Some(3), None, Some(127)])),
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
            Err("label -1 is negative, so it names no identity".into()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn columns_of_other_tools_and_of_the_users_choice_are_read() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![3, 3, 3]));
        let other: ArrayRef = Arc::new(Float32Array::from(vec![0.5; 3]));
        for (image, label, choice) in [
            ("jpg", "cls", ""),
            ("image", "person_id", ""),
            ("img", "class", ""),
            ("x", "y", "image=x,label=y"),
            ("image", "y", "identity=y"),
        ] {
            let choice =
                if choice.is_empty() { Default::default() } else { choice.parse().unwrap() };
            let columns =
                vec![("score", other.clone()), (label, numbers.clone()), (image, images())];
            let batch = batch(columns);
            let columns = find(&batch, None, &choice).unwrap();
            assert!(columns.needed(image) && columns.needed(&format!("{image}.bytes")));
            let whose: Vec<_> = columns.rows(&batch).unwrap().map(|(_, who)| who).collect();
            assert_eq!(whose, [Ok(Who::Number(3)), Ok(Who::Number(3)), Ok(Who::Number(3))]);
        }
        let batch = batch(vec![("image", images()), ("label", numbers)]);
        let problem = find(&batch, None, &"label=who".parse().unwrap()).unwrap_err();
        assert_eq!(problem, "no column `who` among `image`, `label`");
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
            let columns = find(&batch, None, &ColumnChoice::default()).unwrap();
            let found: Vec<_> = columns.rows(&batch).unwrap().map(|(image, _)| image).collect();
            assert_eq!(found, [RowImage::Bytes(b"a"), RowImage::Missing, RowImage::Bytes(b"c")]);
        }
    }

    #[test]
    fn paths_stand_for_images_that_are_not_there_themselves() {
        let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("a.jpg"), None, Some("")]));
        let label: ArrayRef = Arc::new(Int8Array::from(vec![0; 3]));
        let images_of = |columns| {
            let batch = batch(columns);
            let columns = find(&batch, None, &ColumnChoice::default()).unwrap();
            let images = columns.rows(&batch).unwrap().map(|(image, _)| match image {
                RowImage::Bytes(bytes) => format!("{bytes:?}"),
                RowImage::Path(path) => path.to_owned(),
                RowImage::Missing => String::new(),
            });
            images.collect::<Vec<_>>()
        };
        let alone = vec![("file_name", paths.clone()), ("label", label.clone())];
        assert_eq!(images_of(alone), ["a.jpg", "", ""]);
        // Beside images they say where these came from.
        let beside = vec![("path", paths.clone()), ("image", images()), ("label", label.clone())];
        assert_eq!(images_of(beside), ["[97]", "", "[99]"]);
        let field = |name: &str, kind| Arc::new(arrow_schema::Field::new(name, kind, true));
        let none: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![None, None, Some(b"x")]));
        let both = StructArray::from(vec![
            (field("bytes", DataType::Binary), none),
            (field("path", DataType::Utf8), paths),
        ]);
        let columns = vec![("image", Arc::new(both) as ArrayRef), ("label", label)];
        assert_eq!(images_of(columns), ["a.jpg", "", "[120]"]);
    }

    #[test]
    fn what_a_table_lacks_is_said_with_what_it_has() {
        let check = |columns, expected: &str| {
            let error = find(&batch(columns), None, &ColumnChoice::default()).unwrap_err();
            assert_eq!(error, expected);
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0; 3]));
        check(
            vec![("pixels", images()), ("label", numbers.clone())],
            "no column `image` among `pixels`, `label`",
        );
        check(
            vec![("image", images()), ("age", numbers.clone())],
            "no column `label` or `identity` among `image`, `age`",
        );
        check(
            vec![("image", numbers.clone()), ("label", numbers)],
            "column `image` holds Int64, not encoded images or their paths",
        );
        check(
            vec![("image", images()), ("label", images())],
            "column `label` holds Binary, not numbers or text",
        );
    }
}
