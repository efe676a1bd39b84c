//! The layout of CFP (Celebrities in Frontal-Profile in the Wild).
//!
//! `Protocol/Pair_list_F.txt` and `Pair_list_P.txt` number the frontal and the profile images;
//! `Protocol/Split/FP/01/{same,diff}.txt` hold lines `i,j` of one fold.

use std::path::{Path, PathBuf};

use super::{
    ImageName, LIST_BYTES_MAX, Pair, PairList, Protocol,
    lines::{Images, Line, Lines},
};
use crate::{VerifyError, files::read_regular_file};

const N_FOLDS: usize = 10;
const LAYOUT: &str = "CFP's layout: Protocol/Pair_list_F.txt and Pair_list_P.txt with lines `N \
    ../Data/Images/001/frontal/01.jpg`, and Protocol/Split/{FF,FP}/{01…10}/{same,diff}.txt with \
    lines `I,J` of their numbers";

/// Which images CFP compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfpSplit {
    /// Frontal with frontal.
    FrontalFrontal,
    /// Frontal with profile.
    FrontalProfile,
}

impl PairList {
    /// Reads CFP's ten folds; `root` holds `Protocol` and `Data`.
    ///
    /// # Errors
    ///
    /// As [`PairList::read`].
    pub fn read_cfp(root: &Path, split: CfpSplit) -> Result<PairList, VerifyError> {
        let protocol = root.join("Protocol");
        let frontal = image_paths(&protocol.join("Pair_list_F.txt"))?;
        let (folder, right) = match split {
            CfpSplit::FrontalFrontal => ("FF", frontal.clone()),
            CfpSplit::FrontalProfile => ("FP", image_paths(&protocol.join("Pair_list_P.txt"))?),
        };
        let mut images = Images::default();
        let mut pairs = Vec::new();
        for fold in 1..=N_FOLDS {
            let fold = protocol.join("Split").join(folder).join(format!("{fold:02}"));
            for (file, same) in [("same.txt", true), ("diff.txt", false)] {
                let path = fold.join(file);
                read_fold(&path, same, [&frontal, &right], &mut images, &mut pairs)?;
            }
        }
        Ok(PairList { protocol: Protocol::TenFold, images: images.names, pairs })
    }
}

/// Paths below `root` by number, from 1.
fn image_paths(list: &Path) -> Result<Vec<String>, VerifyError> {
    let bytes = read_regular_file(list, LIST_BYTES_MAX)?;
    let lines = Lines::split(list, &bytes)?;
    let path = |(i, line): (usize, &Line)| match line.fields[..] {
        [number, path] if number.parse() == Ok(i + 1) => {
            // As seen from the folder `Protocol`.
            Ok(path.strip_prefix("../").unwrap_or(path).to_owned())
        }
        _ => {
            let problem = format!("`{} PATH` is expected", i + 1);
            Err(lines.error(line.number, problem, LAYOUT))
        }
    };
    lines.lines.iter().enumerate().map(path).collect()
}

fn read_fold(
    path: &Path,
    same: bool,
    sides: [&Vec<String>; 2],
    images: &mut Images,
    pairs: &mut Vec<Pair>,
) -> Result<(), VerifyError> {
    let bytes = read_regular_file(path, LIST_BYTES_MAX)?;
    let lines = Lines::split(path, &bytes)?;
    for line in &lines.lines {
        let joined = line.fields.concat();
        let numbers = joined.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let Ok(&[left, right]) = numbers.as_deref() else {
            return Err(lines.error(line.number, "`I,J` is expected", LAYOUT));
        };
        let mut image = |number: usize, side: &Vec<String>| {
            let path = number.checked_sub(1).and_then(|i| side.get(i)).ok_or_else(|| {
                let problem = format!("image {number}, and the list has 1 to {}", side.len());
                lines.error(line.number, problem, LAYOUT)
            })?;
            Ok::<u32, VerifyError>(images.add(ImageName {
                path: path.clone(),
                any_extension: false,
                person: person_of(path),
                line: line.number,
            }))
        };
        let pair = Pair { left: image(left, sides[0])?, right: image(right, sides[1])?, same };
        pairs.push(pair);
    }
    Ok(())
}

/// `Data/Images/001/frontal/01.jpg` shows `Data/Images/001`.
fn person_of(path: &str) -> Option<String> {
    let person: PathBuf = Path::new(path).parent()?.parent()?.to_owned();
    (!person.as_os_str().is_empty()).then(|| person.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two people, two frontal images and one profile image each.
    fn layout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = dir.path().join("Protocol").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let image = |n: usize, person: usize, kind: &str, i: usize| {
            format!("{n} ../Data/Images/{person:03}/{kind}/{i:02}.jpg\n")
        };
        let frontal = (1..=4).map(|n| image(n, n.div_ceil(2), "frontal", 2 - n % 2));
        write("Pair_list_F.txt", frontal.collect());
        write("Pair_list_P.txt", (1..=2).map(|n| image(n, n, "profile", 1)).collect());
        for fold in 1..=10 {
            for split in ["FF", "FP"] {
                write(&format!("Split/{split}/{fold:02}/same.txt"), "2,1\n".to_owned());
                write(&format!("Split/{split}/{fold:02}/diff.txt"), "1,2\n".to_owned());
            }
        }
        dir
    }

    #[test]
    fn the_second_number_of_fp_counts_profile_images() {
        let dir = layout();
        let list = PairList::read_cfp(dir.path(), CfpSplit::FrontalProfile).unwrap();
        let pair = list.pairs[0];
        assert_eq!(list.images[pair.left as usize].path, "Data/Images/001/frontal/02.jpg");
        assert_eq!(list.images[pair.right as usize].path, "Data/Images/001/profile/01.jpg");
        assert_eq!(list.images[pair.right as usize].person.as_deref(), Some("Data/Images/001"));
        assert_eq!((list.pairs.len(), list.pairs[1].same), (20, false));
        let list = PairList::read_cfp(dir.path(), CfpSplit::FrontalFrontal).unwrap();
        let right = list.images[list.pairs[0].right as usize].path.clone();
        assert_eq!(right, "Data/Images/001/frontal/01.jpg");
    }

    #[test]
    fn a_number_without_an_image_names_file_and_line() {
        let dir = layout();
        let fold = dir.path().join("Protocol/Split/FP/03/diff.txt");
        std::fs::write(&fold, "1,2\n1,3\n").unwrap();
        let error = PairList::read_cfp(dir.path(), CfpSplit::FrontalProfile).unwrap_err();
        let expected = format!("{}:2: image 3, and the list has 1 to 2", fold.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_missing_fold_is_named() {
        let dir = layout();
        std::fs::remove_file(dir.path().join("Protocol/Split/FP/10/same.txt")).unwrap();
        let error = PairList::read_cfp(dir.path(), CfpSplit::FrontalProfile).unwrap_err();
        assert!(error.to_string().contains("FP/10/same.txt: cannot open"), "{error}");
    }
}
