//! Samples of a `WebDataset` shard: members whose names differ only after the first dot of the last
//! part belong together, as `12.jpg` and `12.cls` do.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, de::IgnoredAny};

use super::members::{Fault, Forward, Members};
use crate::{
    IngestError,
    image::has_image_extension,
    source::{InputError, LeftOut, Reject, Spool, catalogue::Who, file::check_size, names::Names},
};

/// Labels are short; a JSON description may hold more than the label.
const LABEL_BYTES_MAX: u64 = 1 << 20;

/// Where an image is, in its shard or among the unpacked images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub start: u64,
    pub n_bytes: u32,
}

/// What a shard holds.
#[derive(Debug, Default)]
pub struct Shard {
    /// Of every sample with an image and a label, in the order of the images.
    pub places: Vec<Place>,
    /// The same.
    pub whose: Vec<Who>,
    /// The names of the images in the shard.
    pub names: Names,
    /// Samples that lack something.
    pub left_out: Vec<LeftOut>,
}

/// A sample of which not all is seen yet.
#[derive(Default)]
struct Sample {
    image: Option<(Place, String)>,
    /// By `.cls` or `.json`, which tells names and numbers apart; the last word of several.
    label: Option<Result<Who, String>>,
    label_is_cls: bool,
}

/// Reads the members of the shard at `path`. Images are read where they lie, or, given a `spool`,
/// are put there.
///
/// # Errors
///
/// [`IngestError`] at damage, or where the spool is full.
pub fn read(path: &Path, input: impl Forward, spool: Option<&Spool>) -> Result<Shard, IngestError> {
    let fault =
        |Fault { offset, problem }| InputError::Tar { path: path.to_path_buf(), offset, problem };
    let shard_name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut reader = Reader {
        members: Members::new(input),
        shard_name: shard_name.into_owned(),
        shard: Shard::default(),
        open: HashMap::new(),
    };
    while let Some(member) = reader.members.advance().map_err(fault)? {
        let Some((key, extension)) = split(&member.name) else { continue };
        let Ok(name) = std::str::from_utf8(&member.name) else {
            if has_image_extension(Path::new(&*String::from_utf8_lossy(&member.name))) {
                reader.leave_out(&String::from_utf8_lossy(&member.name), Reject::NameNotUtf8);
            }
            continue;
        };
        if has_image_extension(Path::new(name)) {
            if member.is_link {
                let link = "a link to another member".into();
                reader.leave_out(name, Reject::Unreadable(link));
                continue;
            }
            if let Err(reject) = check_size(member.n_bytes) {
                reader.leave_out(name, reject);
                continue;
            }
            let mut place = Place { start: member.start, n_bytes: member.n_bytes as u32 };
            if let Some(spool) = spool {
                let image = reader.members.content(member.n_bytes).map_err(fault)?;
                place.start = spool.push(&image.unwrap_or_default())?;
            }
            reader.image(key, place, name);
        } else if matches!(extension, b"cls" | b"json") {
            let content = reader.members.content(LABEL_BYTES_MAX).map_err(fault)?;
            let is_cls = extension == b"cls";
            reader.label(key, is_cls, label(content.as_deref(), is_cls));
        }
    }
    if !reader.members.is_closed() {
        tracing::warn!("{}: the mark at its end is missing: is the copy complete?", path.display());
    }
    Ok(reader.finish())
}

/// The key of a member's name, and what follows its dot; nothing for a name without either.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let base = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].iter().position(|byte| *byte == b'.')?;
    (dot > base).then(|| (&name[..dot], &name[dot + 1..]))
}

struct Reader<R> {
    members: Members<R>,
    shard_name: String,
    shard: Shard,
    /// Samples begun and not complete, by key: one or two, where samples lie together.
    open: HashMap<Vec<u8>, Sample>,
}

impl<R> Reader<R> {
    fn image(&mut self, key: &[u8], place: Place, name: &str) {
        let sample = self.open.entry(key.to_vec()).or_default();
        if sample.image.is_some() {
            return self.leave_out(name, Reject::SecondImage);
        }
        sample.image = Some((place, name.to_owned()));
        self.close_if_whole(key);
    }

    fn label(&mut self, key: &[u8], is_cls: bool, label: Result<Option<Who>, String>) {
        // A description without a label leaves the sample to its other members.
        let Some(label) = label.transpose() else { return };
        let sample = self.open.entry(key.to_vec()).or_default();
        if sample.label.is_none() || is_cls && !sample.label_is_cls {
            sample.label = Some(label);
            sample.label_is_cls = is_cls;
        }
        self.close_if_whole(key);
    }

    fn close_if_whole(&mut self, key: &[u8]) {
        if self.open.get(key).is_some_and(|sample| sample.image.is_some() && sample.label.is_some())
            && let Some(sample) = self.open.remove(key)
        {
            self.close(sample);
        }
    }

    fn close(&mut self, sample: Sample) {
        match sample {
            Sample { image: Some((place, name)), label: Some(Ok(who)), .. } => {
                self.shard.places.push(place);
                self.shard.whose.push(who);
                self.shard.names.push(&name);
            }
            Sample { image: Some((_, name)), label, .. } => {
                let problem = label.and_then(Result::err);
                let problem = problem.unwrap_or_else(|| "no .cls or .json names it".into());
                self.leave_out(&name, Reject::NoLabel(problem));
            }
            Sample { image: None, .. } => {}
        }
    }

    fn leave_out(&mut self, name: &str, reject: Reject) {
        let source = format!("{}/{name}", self.shard_name);
        self.shard.left_out.push(LeftOut { source, reject });
    }

    fn finish(mut self) -> Shard {
        let mut open: Vec<(Vec<u8>, Sample)> = self.open.drain().collect();
        open.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, sample) in open {
            if sample.image.is_none() {
                self.leave_out(&String::from_utf8_lossy(&key), Reject::NoImage);
            }
            self.close(sample);
        }
        self.shard
    }
}

/// The label in the content of a `.cls` or `.json` member; none in a description of other things.
fn label(content: Option<&[u8]>, is_cls: bool) -> Result<Option<Who>, String> {
    let content = content.ok_or("its label is longer than any")?;
    if is_cls {
        let text = std::str::from_utf8(content).map_err(|_| "its label is not valid UTF-8")?;
        return Who::parse(Some(text), None).map(Some);
    }
    let described: Described =
        serde_json::from_slice(content).map_err(|e| format!("its .json: {e}"))?;
    let text = |scalar: Option<Scalar>| scalar.map(Scalar::text).transpose();
    let (label, identity) = (text(described.label)?, text(described.identity)?);
    if label.is_none() && identity.is_none() {
        return Ok(None);
    }
    Who::parse(label.as_deref(), identity.as_deref()).map(Some)
}

#[derive(Deserialize)]
struct Described {
    label: Option<Scalar>,
    identity: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Text(String),
    Other(IgnoredAny),
}

impl Scalar {
    fn text(self) -> Result<String, String> {
        match self {
            Scalar::Unsigned(number) => Ok(number.to_string()),
            Scalar::Signed(number) => Ok(number.to_string()),
            Scalar::Text(text) => Ok(text),
            Scalar::Other(IgnoredAny) => Err("its label is neither an integer nor text".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(members: &[(&str, &[u8])]) -> Shard {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        read(Path::new("x.tar"), &bytes[..], None).unwrap()
    }

    fn found(shard: &Shard) -> Vec<(&str, Who)> {
        let whose = shard.whose.iter().cloned().enumerate();
        whose.map(|(i, who)| (shard.names.get(i), who)).collect()
    }

    #[test]
    fn members_meet_by_their_key_in_any_order() {
        let shard = shard(&[
            ("d/1.jpg", b"x"),
            ("d/1.cls", b"5\n"),
            ("2.json", br#"{"label": 7, "identity": "Bob", "url": "x"}"#),
            ("2.face.png", b"x"),
            ("3.jpg", b"x"),
            ("4.jpg", b"x"),
            ("3.cls", b"Ann"),
            ("4.json", br#"{"identity": 12}"#),
            ("README", b""),
            ("._1.jpg", b""),
        ]);
        let expected = [
            ("d/1.jpg", Who::Number(5)),
            ("2.face.png", Who::Both(7, "Bob".into())),
            ("3.jpg", Who::Name("Ann".into())),
            ("4.jpg", Who::Number(12)),
        ];
        assert_eq!(found(&shard), expected);
        assert_eq!(shard.left_out.len(), 0);
    }

    #[test]
    fn samples_that_lack_something_are_left_out_with_the_reason() {
        let shard = shard(&[
            ("1.jpg", b"x"),
            ("1.png", b"x"),
            ("2.cls", b"3"),
            ("3.jpg", b"x"),
            ("3.cls", b"-1"),
            ("4.jpg", b"x"),
            ("4.json", b"{"),
            ("5.jpg", b"x"),
            ("5.json", br#"{"label": 0.5}"#),
        ]);
        let left_out: Vec<_> =
            shard.left_out.iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        let expected = [
            ("x.tar/1.png", "second_image"),
            ("x.tar/3.jpg", "no_label"),
            ("x.tar/4.jpg", "no_label"),
            ("x.tar/5.jpg", "no_label"),
            ("x.tar/1.jpg", "no_label"),
            ("x.tar/2", "no_image"),
        ];
        assert_eq!(left_out, expected);
        assert!(found(&shard).is_empty());
    }
}
