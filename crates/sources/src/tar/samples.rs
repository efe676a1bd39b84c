//! Samples of a `WebDataset` shard: members whose names differ only after the first dot of the last
//! part belong together, as `12.jpg` and `12.cls` do.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use pfc_image::{Sniffed, has_image_extension, sniff};
use serde::{Deserialize, de::IgnoredAny};

use super::members::{Fault, Forward, Member, Members};
use crate::{
    error::SourceError,
    file::check_size,
    label::{Value, Who},
    names::Names,
    recordio::Damaged,
    reject::Reject,
    shelf::Span,
    source::LeftOut,
    spool::Spool,
    walk::is_system,
};

/// Labels are short; a JSON description may hold more than the label.
const LABEL_BYTES_MAX: u64 = 1 << 20;

/// The reason that is given for a sample without a label.
pub const NO_LABEL: &str = "no .cls or .json names it";

/// What a shard holds.
#[derive(Debug, Default)]
pub struct Shard {
    /// Of every sample with an image: those last that lack a label, or whose members do not lie
    /// together.
    pub places: Vec<Span>,
    /// The identity of each, or why it has none.
    pub whose: Vec<Result<Who, String>>,
    /// The names of the images in the shard.
    pub names: Names,
    /// Members that are no image or label, samples without an image, and second images of samples.
    pub left_out: Vec<LeftOut>,
}

/// A sample of which more members may follow.
#[derive(Default)]
struct Sample {
    image: Option<(Span, String)>,
    /// What its `.cls` says, and its `.json`.
    labels: [Option<Result<Who, String>>; 2],
    /// Its members do not lie together: the last of them may come at any time.
    is_scattered: bool,
}

impl Sample {
    fn is_whole(&self) -> bool {
        self.image.is_some() && self.labels.iter().any(Option::is_some)
    }

    /// The `.cls` counts, and gets its name from the `.json` if that has one.
    fn who(&mut self) -> Result<Who, String> {
        let [cls, json] = self.labels.each_mut().map(Option::take);
        match (cls.transpose()?, json.transpose()?) {
            (Some(Who::Number(a) | Who::Exponent(a, _)), Some(Who::Both(b, _))) if a != b => {
                Err(format!("its .cls says {a}, its .json {b}"))
            }
            (
                Some(Who::Number(number) | Who::Exponent(number, _)),
                Some(Who::Both(_, name) | Who::Name(name)),
            ) => Ok(Who::Both(number, name)),
            (Some(who), _) | (None, Some(who)) => Ok(who),
            (None, None) => Err(NO_LABEL.into()),
        }
    }
}

/// Reads the members of the shard at `path`. Images are read where they lie, or, given a `spool`,
/// are put there.
///
/// # Errors
///
/// [`SourceError`] at damage that is not to be salvaged, where the system fails, or the spool is full.
pub fn read(
    path: &Path,
    input: impl Forward,
    spool: Option<&Spool>,
    damaged: Damaged,
) -> Result<Shard, SourceError> {
    let fault = |fault| match fault {
        Fault::Damage { offset, problem } => {
            SourceError::Tar { path: path.to_path_buf(), offset, problem }
        }
        Fault::System(error) => SourceError::at("read", path)(error),
    };
    let shard_name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut reader = Reader {
        members: match damaged {
            Damaged::Refuse => Members::new(input),
            Damaged::Salvage => Members::salvaging(input),
        },
        shard_name: shard_name.into_owned(),
        shard: Shard::default(),
        current: Default::default(),
        open: HashMap::new(),
        seconds: Vec::new(),
        is_labelled: false,
    };
    let mut n_joined = 0;
    while let Some(member) = reader.members.advance().map_err(fault)? {
        if reader.members.n_joined() > n_joined {
            // Samples of two files are different samples, even if they have the same key.
            reader.close_open();
            n_joined = reader.members.n_joined();
        }
        reader.member(&member, spool, damaged, &fault)?;
    }
    reader.list_damage(path);
    if n_joined > 0 {
        let (path, n) = (path.display(), n_joined + 1);
        tracing::warn!("{path}: {n} tar files were joined to this one, and all are read");
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
    /// The sample whose members are being met, with its key.
    current: (Vec<u8>, Sample),
    /// Samples that were met and not found whole, by key. Usually there is none.
    open: HashMap<Vec<u8>, Sample>,
    /// Images of samples that have one already: they count where the file has folders instead of labels.
    seconds: Vec<(Span, String)>,
    /// The file has a label of some sample.
    is_labelled: bool,
}

impl<R: Forward> Reader<R> {
    fn member(
        &mut self,
        member: &Member,
        spool: Option<&Spool>,
        damaged: Damaged,
        fault: &impl Fn(Fault) -> SourceError,
    ) -> Result<(), SourceError> {
        let text = String::from_utf8_lossy(&member.name);
        if is_of_system(&text) {
            self.leave_out(&text, Reject::SystemFile);
            return Ok(());
        }
        let Some((key, extension)) = split(&member.name) else {
            return self.without_ending(member, spool, damaged, fault);
        };
        let is_image = has_image_extension(Path::new(&*text));
        let Ok(name) = std::str::from_utf8(&member.name) else {
            if is_image {
                self.leave_out(&text, Reject::NameNotUtf8);
            }
            return Ok(());
        };
        let is_cls = extension.eq_ignore_ascii_case(b"cls");
        // The content of what the file ends in is damage, which is listed by its place.
        let is_cut = damaged == Damaged::Salvage && !self.members.is_whole();
        if is_image && member.is_link {
            self.leave_out(name, Reject::Unreadable("a link to another member".into()));
        } else if is_image && !is_cut {
            if let Err(reject) = check_size(member.n_bytes) {
                self.leave_out(name, reject);
                return Ok(());
            }
            let mut place = Span { start: member.start, n_bytes: member.n_bytes as u32 };
            if let Some(spool) = spool {
                match (self.members.content(member.n_bytes), damaged) {
                    (Ok(image), _) => place.start = spool.push(&image.unwrap_or_default())?,
                    (Err(Fault::Damage { problem, .. }), Damaged::Salvage) => {
                        self.leave_out(name, Reject::Damaged(problem));
                        return Ok(());
                    }
                    (Err(e), _) => return Err(fault(e)),
                }
            }
            self.image(key, place, name);
        } else if !is_cut && (is_cls || extension.eq_ignore_ascii_case(b"json")) {
            match (self.members.content(LABEL_BYTES_MAX), damaged) {
                (Ok(content), _) => self.label(key, is_cls, label(content.as_deref(), is_cls)),
                // It is met again by whoever goes on to the next member.
                (Err(Fault::Damage { .. }), Damaged::Salvage) => {}
                (Err(e), _) => return Err(fault(e)),
            }
        }
        Ok(())
    }

    /// A member whose name has no ending is an image by its content, as a file of a folder is.
    fn without_ending(
        &mut self,
        member: &Member,
        spool: Option<&Spool>,
        damaged: Damaged,
        fault: &impl Fn(Fault) -> SourceError,
    ) -> Result<(), SourceError> {
        let Ok(name) = std::str::from_utf8(&member.name) else { return Ok(()) };
        let is_named = !name.is_empty() && !name.ends_with('/');
        if !is_named || member.is_link || check_size(member.n_bytes).is_err() {
            return Ok(());
        }
        let content = match (self.members.content(member.n_bytes), damaged) {
            (Ok(content), _) => content.unwrap_or_default(),
            // It is met again by whoever goes on to the next member.
            (Err(Fault::Damage { .. }), Damaged::Salvage) => return Ok(()),
            (Err(e), _) => return Err(fault(e)),
        };
        if sniff(&content) == Sniffed::NotAnImage {
            return Ok(());
        }
        let mut place = Span { start: member.start, n_bytes: member.n_bytes as u32 };
        if let Some(spool) = spool {
            place.start = spool.push(&content)?;
        }
        self.image(&member.name, place, name);
        Ok(())
    }

    /// Lists the stretches that were stepped over.
    fn list_damage(&mut self, path: &Path) {
        let damage = self.members.damage();
        if damage.is_empty() {
            return;
        }
        tracing::warn!("{}: {} damaged stretches were stepped over", path.display(), damage.len());
        let left_out = damage.iter().map(|stretch| LeftOut {
            source: format!("{}: bytes {} to {}", self.shard_name, stretch.start, stretch.end),
            reject: Reject::Damaged(stretch.problem.clone()),
        });
        self.shard.left_out.extend(left_out);
    }
}

/// Whether a part of a member's path is a system's name; `.` is none.
pub fn is_of_system(name: &str) -> bool {
    name.split('/').any(|part| !matches!(part, "" | "." | "..") && is_system(part.as_ref()))
}

impl<R> Reader<R> {
    fn image(&mut self, key: &[u8], place: Span, name: &str) {
        let image = &mut self.sample(key).image;
        if image.is_some() {
            return self.seconds.push((place, name.to_owned()));
        }
        *image = Some((place, name.to_owned()));
    }

    fn label(&mut self, key: &[u8], is_cls: bool, label: Result<Option<Who>, String>) {
        // A description without a label leaves the sample to its other members.
        let Some(label) = label.transpose() else { return };
        self.is_labelled = true;
        self.sample(key).labels[usize::from(!is_cls)].get_or_insert(label);
    }

    /// Goes to the sample of this key.
    fn sample(&mut self, key: &[u8]) -> &mut Sample {
        if self.current.0 != key {
            self.settle();
            let sample = self.open.remove(key).unwrap_or_default();
            self.current = (key.to_vec(), sample);
        }
        &mut self.current.1
    }

    /// Is done with the current sample, if it may be.
    fn settle(&mut self) {
        let (key, mut sample) = std::mem::take(&mut self.current);
        if sample.is_whole() && !sample.is_scattered {
            self.close(sample);
        } else if !key.is_empty() {
            sample.is_scattered = true;
            self.open.insert(key, sample);
        }
    }

    fn close(&mut self, mut sample: Sample) {
        let who = sample.who();
        if let Some((place, name)) = sample.image {
            self.shard.places.push(place);
            self.shard.whose.push(who);
            self.shard.names.push(&name);
        }
    }

    fn leave_out(&mut self, name: &str, reject: Reject) {
        let source = format!("{}/{name}", self.shard_name);
        self.shard.left_out.push(LeftOut { source, reject });
    }

    fn finish(mut self) -> Shard {
        let seconds = std::mem::take(&mut self.seconds);
        if self.is_labelled {
            for (_, name) in &seconds {
                self.leave_out(name, Reject::SecondImage);
            }
            self.close_open();
            return self.shard;
        }
        // What is before the first dot of a name says nothing where folders are the identities.
        self.close_open();
        for (place, name) in seconds {
            self.shard.places.push(place);
            self.shard.whose.push(Err(NO_LABEL.into()));
            self.shard.names.push(&name);
        }
        self.shard
    }

    /// Is done with all samples that were met.
    fn close_open(&mut self) {
        self.settle();
        let mut open: Vec<(Vec<u8>, Sample)> = self.open.drain().collect();
        open.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut scattered, mut without): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(_, sample)| sample.image.is_some());
        // By place; empty images that share one stay in the order of their keys.
        scattered.sort_by_key(|(_, sample)| sample.image.as_ref().map(|(place, _)| place.start));
        scattered.into_iter().for_each(|(_, sample)| self.close(sample));
        // A label far from a sample that was whole without it is no sample without an image.
        let n_whole = if without.is_empty() { 0 } else { self.shard.places.len() };
        let key = |i| {
            let name = self.shard.names.get(i).as_bytes();
            split(name).map_or(name, |(key, _)| key)
        };
        let known: HashSet<&[u8]> = (0..n_whole).map(key).collect();
        without.retain(|(key, _)| !known.contains(&key[..]));
        for (key, _) in without {
            self.leave_out(&String::from_utf8_lossy(&key), Reject::NoImage);
        }
    }
}

/// The label in the content of a `.cls` or `.json` member; none in a description of other things.
fn label(content: Option<&[u8]>, is_cls: bool) -> Result<Option<Who>, String> {
    let content = content.ok_or("its label is longer than any")?;
    if is_cls {
        let text = std::str::from_utf8(content).map_err(|_| "its label is not valid UTF-8")?;
        return Who::parse(Some(text), None).map(Some);
    }
    let Described { label, identity } =
        serde_json::from_slice(content).map_err(|e| format!("its .json: {e}"))?;
    let label = label.as_ref().map(Scalar::value).transpose()?;
    match (label, identity.as_ref().map(Scalar::value).transpose()?) {
        (None, None) => Ok(None),
        (label, identity) => Who::of(label, identity).map(Some),
    }
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
    Float(f64),
    Text(String),
    Other(IgnoredAny),
}

impl Scalar {
    fn value(&self) -> Result<Value<'_>, String> {
        match self {
            Scalar::Unsigned(number) => Ok(Value::Integer((*number).into())),
            Scalar::Signed(number) => Ok(Value::Integer((*number).into())),
            Scalar::Float(number) => Ok(Value::Float(*number)),
            Scalar::Text(text) => Ok(Value::Text(text)),
            Scalar::Other(IgnoredAny) => Err("its label is neither a number nor text".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn shard(members: &[(&str, &[u8])]) -> Shard {
        read(Path::new("x.tar"), &tar(members)[..], None, Damaged::Refuse).unwrap()
    }

    /// The images whose labels are understood, and why those of the others are not.
    fn found(shard: &Shard) -> Vec<(&str, Who)> {
        let whose = shard.whose.iter().enumerate();
        whose.filter_map(|(i, who)| Some((shard.names.get(i), who.clone().ok()?))).collect()
    }

    fn nobodys(shard: &Shard) -> Vec<&str> {
        let whose = shard.whose.iter().enumerate();
        whose.filter(|(_, who)| who.is_err()).map(|(i, _)| shard.names.get(i)).collect()
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
            ("5.png", b"x"),
            ("5.json", br#"{"identity": "Eve", "label": 9}"#),
            ("5.cls", b"9"),
            ("2.cls", b"7"),
            ("README", b""),
            ("6.jpg", b"x"),
            ("6.json", br#"{"label": 3.0}"#),
            ("./7.jpg", b"x"),
            ("./7.CLS", b"+4.0\n"),
        ]);
        let expected = [
            ("d/1.jpg", Who::Number(5)),
            ("2.face.png", Who::Both(7, "Bob".into())),
            ("5.png", Who::Both(9, "Eve".into())),
            ("6.jpg", Who::Number(3)),
            ("7.jpg", Who::Number(4)),
            ("3.jpg", Who::Name("Ann".into())),
            ("4.jpg", Who::Number(12)),
        ];
        assert_eq!(found(&shard), expected);
        assert_eq!(shard.left_out.len(), 0);
    }

    #[test]
    fn a_sample_without_a_label_is_nobodys() {
        let shard = shard(&[
            ("1.jpg", b"x"),
            ("2.jpg", b"x"),
            ("2.cls", b"5"),
            ("3.cls", b"-1"),
            ("3.jpg", b"x"),
            ("4.cls", b"2"),
            ("5.png", b"x"),
        ]);
        assert_eq!(found(&shard), [("2.jpg", Who::Number(5))]);
        assert_eq!(nobodys(&shard), ["3.jpg", "1.jpg", "5.png"]);
        let left_out: Vec<_> = shard.left_out.iter().map(|l| l.reject.reason()).collect();
        assert_eq!(left_out, ["no_image"]);
    }

    #[test]
    fn what_systems_leave_behind_is_passed_over() {
        let shard = shard(&[
            ("a/1.jpg", b"x"),
            ("a/._1.jpg", b"x"),
            ("a/1.cls", b"0"),
            ("__MACOSX/a/1.jpg", b"x"),
            (".DS_Store", b"x"),
        ]);
        assert_eq!(found(&shard), [("a/1.jpg", Who::Number(0))]);
        assert!(shard.left_out.iter().all(|l| l.reject == Reject::SystemFile));
        assert_eq!(shard.left_out.len(), 3);
    }

    #[test]
    fn samples_that_lack_something_are_told_from_those_that_do_not() {
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
            ("6.jpg", b"x"),
            ("6.cls", b"1"),
            ("6.json", br#"{"label": 2, "identity": "Ann"}"#),
        ]);
        let left_out: Vec<_> =
            shard.left_out.iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        assert_eq!(left_out, [("x.tar/1.png", "second_image"), ("x.tar/2", "no_image")]);
        assert!(found(&shard).is_empty());
        assert_eq!(nobodys(&shard), ["3.jpg", "4.jpg", "5.jpg", "6.jpg", "1.jpg"]);
    }

    #[test]
    fn without_labels_every_image_counts_whatever_its_name_begins_with() {
        let jpeg: &[u8] = b"\xff\xd8\xff\xe0";
        let members: [(&str, &[u8]); 5] = [
            ("a/1.jpg", b"x"),
            ("a/1.face2.jpg", b"x"),
            ("a/1.png", b"x"),
            ("a/2", jpeg),
            ("a/notes", b"text"),
        ];
        let without = shard(&members);
        let mut names = nobodys(&without);
        names.sort_unstable();
        assert_eq!(names, ["a/1.face2.jpg", "a/1.jpg", "a/1.png", "a/2"]);
        assert!(without.left_out.is_empty());
        let label: (&str, &[u8]) = ("a/2.cls", b"3");
        let labelled = shard(&[&members[..], &[label]].concat());
        assert_eq!(found(&labelled), [("a/2", Who::Number(3))]);
        let left_out: Vec<_> =
            labelled.left_out.iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        assert_eq!(
            left_out,
            [("x.tar/a/1.face2.jpg", "second_image"), ("x.tar/a/1.png", "second_image")]
        );
    }

    #[test]
    fn samples_of_joined_tar_files_are_not_mixed() {
        let one = |label: &'static [u8]| tar(&[("0.jpg", b"x"), ("0.cls", label)]);
        let joined = [tar(&[("0.jpg", b"x")]), one(b"1"), one(b"2")].concat();
        let shard = read(Path::new("x.tar"), &joined[..], None, Damaged::Refuse).unwrap();
        let expected = [("0.jpg", Who::Number(1)), ("0.jpg", Who::Number(2))];
        assert_eq!((found(&shard), nobodys(&shard)), (expected.to_vec(), vec!["0.jpg"]));
        assert!(shard.left_out.is_empty());
    }
}
