//! Names of images: which promise one, and where a list may lead.

use std::path::{Component, MAIN_SEPARATOR_STR, Path, PathBuf};

/// Extensions of the formats that are read, the most usual first: where a list leaves the extension
/// open, they are tried in this order.
pub const EXTENSIONS: [&str; 13] =
    ["jpg", "png", "jpeg", "bmp", "webp", "ppm", "pgm", "pbm", "pnm", "pam", "jpe", "jfif", "dib"];

/// Extensions of images in formats that are not read.
const OTHER_EXTENSIONS: [&str; 4] = ["gif", "tif", "tiff", "heic"];

/// Whether a name promises an image: a file that breaks the promise is worth a report.
pub fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    let mut known = EXTENSIONS.iter().chain(&OTHER_EXTENSIONS);
    extension.is_some_and(|e| known.any(|known| e.eq_ignore_ascii_case(known)))
}

/// The paths that an image may have whose extension a list leaves open, the likeliest first.
pub fn with_extensions(path: &Path) -> impl Iterator<Item = PathBuf> {
    // What stands after a point in the name is no extension, and the name need not be UTF-8.
    EXTENSIONS.iter().map(|extension| {
        let mut path = path.as_os_str().to_owned();
        path.push(".");
        path.push(extension);
        PathBuf::from(path)
    })
}

/// The folder that all images of a list lie in.
///
/// One rule holds for every list that names images, be it of pairs, of a benchmark, of landmarks or
/// of a data set whose folder of images the user names: a list from elsewhere reads, and where
/// results are stored by name writes, below that folder alone. Parts that are `.` or `..` are
/// resolved by name, and an absolute path counts if it lies below the folder. Links in the folder are
/// the user's own and are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// Absolute and without `.` and `..`; nothing if the folder is not known to the reader, so that no
    /// absolute path lies below it.
    path: Option<PathBuf>,
}

impl ImageFolder {
    /// The folder at `path`, which may be relative to the current one.
    pub fn at(path: &Path) -> ImageFolder {
        let whole = std::path::absolute(path).ok();
        ImageFolder { path: whole.and_then(|path| plain(&path)) }
    }

    /// A folder that the reader does not know: every path is below it that climbs nowhere.
    pub const ANY: ImageFolder = ImageFolder { path: None };

    /// The path below the folder that `name` stands for.
    ///
    /// # Errors
    ///
    /// [`LeadsOut`] if it is elsewhere, or the folder itself.
    pub fn below(&self, name: &str) -> Result<PathBuf, LeadsOut> {
        let leads_out = || LeadsOut { name: name.to_owned() };
        let plain = plain(Path::new(name)).ok_or_else(leads_out)?;
        let below = match (plain.is_absolute(), &self.path) {
            (false, _) => plain,
            (true, Some(folder)) => {
                plain.strip_prefix(folder).map_err(|_| leads_out())?.to_path_buf()
            }
            (true, None) => return Err(leads_out()),
        };
        // Of a prefix such as `C:` no path is made.
        let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
        match is_below && below.file_name().is_some() {
            true => Ok(below),
            false => Err(leads_out()),
        }
    }
}

/// A path of a list that leads out of the folder which its images lie in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path `{}` leads out of the folder of the images", shown(name))]
pub struct LeadsOut {
    /// As the list has it.
    pub name: String,
}

impl LeadsOut {
    /// The way out.
    pub const HINT: &str = "a list names images below one folder: give the folder that holds all of \
        them, and in the list the paths below it; an absolute path has to begin with that folder";
}

/// What is shown of a name: its beginning, without control characters.
fn shown(name: &str) -> String {
    name.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The path without `.` and `..`; nothing if it climbs above where it starts.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                let is_above = matches!(
                    plain.components().next_back(),
                    None | Some(Component::RootDir | Component::Prefix(_))
                );
                if is_above {
                    return None;
                }
                plain.pop();
            }
            Component::RootDir => plain.push(MAIN_SEPARATOR_STR),
            part => plain.push(part),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_read_in_any_case() {
        assert!(has_image_extension(Path::new("a/b.JPG")));
        assert!(has_image_extension(Path::new("a/b.tiff")));
        assert!(!has_image_extension(Path::new("a/README.txt")));
        assert!(!has_image_extension(Path::new("jpg")));
    }

    #[test]
    fn an_open_extension_is_put_behind_the_whole_name() {
        let mut paths = with_extensions(Path::new("a.b/1.2"));
        assert_eq!(paths.next(), Some("a.b/1.2.jpg".into()));
        assert_eq!(paths.next(), Some("a.b/1.2.png".into()));
        assert!(paths.all(|path| has_image_extension(&path)));
    }

    #[track_caller]
    fn check(folder: &ImageFolder, name: &str, expected: Option<&str>) {
        let found = folder.below(name);
        assert_eq!(found.as_ref().ok(), expected.map(PathBuf::from).as_ref(), "{name}");
        if let Err(error) = found {
            assert!(error.to_string().starts_with("the path `"), "{error}");
        }
    }

    #[test]
    fn paths_below_the_folder_are_found_by_name() {
        for folder in [ImageFolder::ANY, ImageFolder::at(Path::new("/d/faces"))] {
            check(&folder, "1.jpg", Some("1.jpg"));
            check(&folder, "./ann//1.jpg", Some("ann/1.jpg"));
            check(&folder, "ann/../bob/1.jpg", Some("bob/1.jpg"));
            check(&folder, "..a/1..jpg", Some("..a/1..jpg"));
        }
    }

    #[test]
    fn paths_that_lead_out_of_the_folder_are_refused() {
        for folder in [ImageFolder::ANY, ImageFolder::at(Path::new("/d/faces"))] {
            for name in [
                "",
                ".",
                "..",
                "a/..",
                "../1.jpg",
                "a/../../1.jpg",
                "../faces/1.jpg",
                "/etc/1.jpg",
                "/d/faces2/1.jpg",
                "/d/faces/../1.jpg",
                "/d/faces",
                "/../1.jpg",
                "/",
            ] {
                check(&folder, name, None);
            }
        }
    }

    #[test]
    fn an_absolute_path_counts_below_the_folder_alone() {
        check(&ImageFolder::at(Path::new("/d/faces")), "/d/faces/a/1.jpg", Some("a/1.jpg"));
        check(&ImageFolder::at(Path::new("/d/x/../faces/")), "/d/./faces/1.jpg", Some("1.jpg"));
        check(&ImageFolder::at(Path::new("/")), "/etc/1.jpg", Some("etc/1.jpg"));
        check(&ImageFolder::ANY, "/d/faces/a/1.jpg", None);
        let here = std::env::current_dir().unwrap();
        let name = here.join("faces/1.jpg").display().to_string();
        check(&ImageFolder::at(Path::new("faces")), &name, Some("1.jpg"));
        check(&ImageFolder::at(Path::new(".")), &name, Some("faces/1.jpg"));
    }
}
