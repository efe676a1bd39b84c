use super::*;

/// Databases that the `lmdb` package wrote (`tests/datasets/write_sources.py`), seven images of three people.
const LABEL: &[u8] = include_bytes!("../../tests/zoo/label.lmdb/data.mdb");
const NUMBERED: &[u8] = include_bytes!("../../tests/zoo/numbered.lmdb");
const DATUM: &[u8] = include_bytes!("../../tests/zoo/datum.lmdb/data.mdb");
const PICKLED: &[u8] = include_bytes!("../../tests/zoo/pickled.lmdb/data.mdb");
const PATHS: &[u8] = include_bytes!("../../tests/zoo/paths.lmdb/data.mdb");

fn listed(bytes: &[u8]) -> Result<Found<Span>, String> {
    list(bytes, "x").map_err(|unlisted| match unlisted {
        Unlisted::Unread(unread) => unread.to_string(),
        Unlisted::Source(error) => error.to_string(),
    })
}

/// Name, person and image of every entry.
fn rows(bytes: &[u8]) -> Vec<(String, Option<Who>, Vec<u8>)> {
    let entries = listed(bytes).unwrap().entries.into_iter();
    entries
        .map(|Entry { name, whose, place }| {
            let start = place.start as usize;
            let who = match whose {
                Whose::Said(who) => Some(who.unwrap()),
                Whose::Unsaid(_) => None,
            };
            (name, who, bytes[start..start + place.n_bytes as usize].to_vec())
        })
        .collect()
}

/// The pictures, in the order of their paths.
fn faces() -> Vec<(u64, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo/faces");
    let of =
        |label: u64, i: u64| (label, std::fs::read(dir.join(format!("p{label}/{i}.jpg"))).unwrap());
    [(0, 0), (0, 3), (0, 6), (1, 1), (1, 4), (2, 2), (2, 5)].map(|(label, i)| of(label, i)).to_vec()
}

#[test]
fn the_layouts_that_are_around_are_read() {
    let named: Vec<_> = (0..)
        .zip(faces())
        .map(|(i, (label, image))| {
            (format!("{i:08}"), Some(Who::Both(label, format!("p{label}").into())), image)
        })
        .collect();
    assert_eq!(rows(LABEL), named);
    let numbers = |prefix: &str, width| {
        let row =
            |(i, (label, image))| (format!("{prefix}{i:0width$}"), Some(Who::Number(label)), image);
        (0..).zip(faces()).map(row).collect::<Vec<(String, _, _)>>()
    };
    assert_eq!(rows(NUMBERED), numbers("image-", 9));
    assert_eq!(rows(DATUM), numbers("", 8));
    assert_eq!(rows(PICKLED), numbers("", 1));
    let names: Vec<String> = rows(PATHS).into_iter().map(|row| row.0).collect();
    assert_eq!(names[..4], ["p0/0.jpg", "p0/3.jpg", "p0/6.jpg", "p1/1.jpg"]);
    assert!(rows(PATHS).iter().all(|row| row.1.is_none()));
}

#[test]
fn what_is_no_database_or_cut_short_says_so() {
    assert_eq!(listed(b"").err().unwrap(), "no LMDB file begins here");
    assert_eq!(listed(&[0; 5000]).err().unwrap(), "no LMDB file begins here");
    let cut = listed(&LABEL[..8192]).err().unwrap();
    assert!(cut.starts_with("it has no page "), "{cut}");
    let mut other = LABEL.to_vec();
    other[20] = 9;
    let error = listed(&other).err().unwrap();
    assert_eq!(error, "it is of version 9 of LMDB's files; 1 is read");
}

#[test]
fn pages_that_lead_in_a_circle_end() {
    // A branch page of one node that leads to itself, in a file of three pages.
    let mut bytes = LABEL[..3 * 4096].to_vec();
    for meta in [0, 4096] {
        // The root of the second tree of the page, behind the first.
        let root = meta + HEADER + 24 + 48 + 40;
        bytes[root..root + 8].copy_from_slice(&2_u64.to_le_bytes());
    }
    let page = &mut bytes[2 * 4096..];
    page.fill(0);
    page[10] = 1;
    page[12..14].copy_from_slice(&18_u16.to_le_bytes());
    page[16..18].copy_from_slice(&4000_u16.to_le_bytes());
    page[4000] = 2;
    assert_eq!(listed(&bytes).err().unwrap(), "its pages lead in a circle");
}

const HEADER: usize = 16;

#[test]
fn no_damage_to_a_database_is_more_than_an_error() {
    for bytes in [LABEL, NUMBERED, DATUM, PICKLED] {
        let is_told = |at: usize| bytes[at] != 0 || at.is_multiple_of(61);
        for at in (0..bytes.len()).filter(|at| is_told(*at) && (at % 4096 < 300 || at % 31 == 0)) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] = value;
                for entry in listed(&damaged).into_iter().flat_map(|found| found.entries) {
                    let end = entry.place.start + u64::from(entry.place.n_bytes);
                    assert!(end <= bytes.len() as u64, "{at}");
                }
            }
        }
    }
}
