//! Lists of lines of JSON, an object for each image, as `metadata.jsonl` is.

use std::borrow::Cow;

use pfc_image::align::Landmarks;
use serde_json::{Map, Value as Json};

use super::{layout::POINT_COLUMNS, row::Row};
use crate::{
    catalogue::People,
    columns::{ColumnChoice, Names},
    label::{Value, Who},
};

/// Whether a line is an object that may be an image, and not the one of a list in another layout.
pub fn is_line(line: &[u8]) -> bool {
    object(line).is_ok_and(|object| !object.values().any(Json::is_array))
}

/// Which keys are what, by the first line.
///
/// # Errors
///
/// That it is no object, or that a key is missing.
pub fn names(line: &[u8], choice: &ColumnChoice, people: People) -> Result<Names, String> {
    let keys: Vec<String> = object(line)?.keys().cloned().collect();
    choice.names(&keys, people)
}

/// The image of a line.
///
/// # Errors
///
/// What is wrong with this one line.
pub fn row<'a>(line: &[u8], names: &Names) -> Result<Row<'a>, String> {
    let object = object(line)?;
    let value = |name: &Option<String>| {
        let value = name.as_ref().map(|name| object.get(name).map_or(Ok(Value::Missing), value));
        value.transpose()
    };
    let who = match (value(&names.label), value(&names.identity)) {
        (Ok(label), Ok(identity)) => Who::of(label, identity),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    let path = object.get(&names.image).and_then(Json::as_str).map(str::trim).unwrap_or_default();
    if path.is_empty() {
        return Err(format!("`{}` is no path", names.image));
    }
    let is_turned = path.contains('\\');
    let path = Cow::Owned(path.replace('\\', "/"));
    Ok(Row { path, is_turned, who, points: points(&object)? })
}

fn object(line: &[u8]) -> Result<Map<String, Json>, String> {
    serde_json::from_slice(line).map_err(|error| format!("the line is no object of JSON: {error}"))
}

fn value(json: &Json) -> Result<Value<'_>, String> {
    match json {
        Json::Null => Ok(Value::Missing),
        Json::String(text) => Ok(Value::Text(text)),
        Json::Number(number) => Ok(match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Value::Integer(number.into()),
            (_, Some(number), _) => Value::Integer(number.into()),
            (_, _, number) => Value::Float(number.unwrap_or(f64::NAN)),
        }),
        _ => Err("its label is neither a number nor text".into()),
    }
}

/// The landmarks, where all are given.
fn points(object: &Map<String, Json>) -> Result<Option<Landmarks>, String> {
    if !object.contains_key(POINT_COLUMNS[0]) {
        return Ok(None);
    }
    let mut points: Landmarks = [[f32::NAN; 2]; 5];
    if POINT_COLUMNS.iter().all(|name| object.get(*name).is_none_or(Json::is_null)) {
        return Ok(Some(points));
    }
    for (point, name) in points.as_flattened_mut().iter_mut().zip(POINT_COLUMNS) {
        let value = object.get(name).and_then(Json::as_f64).map(|value| value as f32);
        let value = value.filter(|value| value.is_finite());
        *point = value.ok_or_else(|| format!("`{name}` is no coordinate"))?;
    }
    Ok(Some(points))
}
