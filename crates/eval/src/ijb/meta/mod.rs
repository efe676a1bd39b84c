//! The `meta` folder of IJB-B and IJB-C.

mod faces;
mod lines;
mod natural_order;
mod pairs;
mod search;
mod templates;

pub use faces::FaceList;
pub use pairs::PairList;
pub use search::SearchList;
pub use templates::TemplateIndex;

use std::path::{Path, PathBuf};

use crate::EvalError;

/// No list of a benchmark is near this size.
const LIST_BYTES_MAX: u64 = 8 << 30;

/// Where the lists of a benchmark are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaPaths {
    /// Landmarks and detector scores.
    pub landmarks: PathBuf,
    /// Template and media ids.
    pub faces: PathBuf,
    /// Template pairs.
    pub pairs: PathBuf,
    /// Gallery lists, by name.
    pub galleries: Vec<(String, PathBuf)>,
    /// Probe list.
    pub probes: PathBuf,
}

impl MetaPaths {
    /// The paths below `data` for file names that start with `prefix`, `ijbb` or `ijbc`.
    pub fn new(data: &Path, prefix: &str, galleries: &[String]) -> MetaPaths {
        let at = |name: &str| data.join("meta").join(format!("{prefix}_{name}"));
        let gallery = |name: &String| (name.clone(), at(&format!("1N_gallery_{name}.csv")));
        MetaPaths {
            landmarks: at("name_5pts_score.txt"),
            faces: at("face_tid_mid.txt"),
            pairs: at("template_pair_label.txt"),
            galleries: galleries.iter().map(gallery).collect(),
            probes: at("1N_probe_mixed.csv"),
        }
    }
}

fn empty(path: &Path, layout: &'static str) -> EvalError {
    EvalError::line(path, 1, "the list is empty", layout)
}

/// Exactly `N` fields between spaces or tabs.
fn fields<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let mut fields = line.split_ascii_whitespace();
    let mut found = [""; N];
    for (n, field) in found.iter_mut().enumerate() {
        *field = fields.next().ok_or_else(|| format!("{n} fields where {N} are expected"))?;
    }
    match fields.count() {
        0 => Ok(found),
        more => Err(format!("{} fields where {N} are expected", N + more)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_give_a_list_or_an_error(a: Vec<u8>, b: Vec<u8>, text in "[0-9 ,.a\n-]{0,80}") {
            let (path, index) = (Path::new("x"), TemplateIndex::new(vec![1, 2]));
            for bytes in [&a[..], text.as_bytes()] {
                let _ = FaceList::parse((path, bytes), (path, &b));
                let _ = PairList::parse(path, bytes, &index);
                let _ = SearchList::parse(path, bytes, &index);
            }
        }
    }
}
