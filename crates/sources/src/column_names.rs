//! What the columns of lists and tables are called by the tools that write them.

/// Names of columns with the path of an image, or with its bytes, the more usual first.
pub const IMAGES: &[&str] = &[
    "path",
    "image",
    "file_name",
    "image_path",
    "img_path",
    "file",
    "file_path",
    "img",
    "image_name",
    "img_name",
    "image_file",
    "image_filename",
    "img_file",
    "img_filename",
    "images",
    "relative_path",
    "relpath",
    "full_path",
    "absolute_path",
    "abs_path",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image_bytes",
    "img_bytes",
    "face",
    "face_path",
    "crop",
    "crop_path",
    "photo",
    "photo_path",
    "picture",
    "picture_path",
    "image_id",
    "name_id",
    "image_name_id",
    "encoded",
    "image_raw",
    "image/encoded",
];

/// Names of columns with a number per person.
pub const LABELS: &[&str] = &[
    "label",
    "labels",
    "class",
    "class_id",
    "cls",
    "target",
    "label_id",
    "class_idx",
    "class_index",
    "class_label",
    "person_label",
    "identity_label",
    "image/class/label",
    "image/label",
    "image/source_id",
];

/// Names of columns with a name per person.
pub const IDENTITIES: &[&str] = &[
    "identity",
    "person",
    "person_id",
    "identity_id",
    "identity_name",
    "person_name",
    "subject",
    "subject_id",
    "subject_name",
    "individual",
    "individual_id",
    "pid",
    "celebrity",
    "celebrity_name",
    "class_name",
    "image/class/text",
    "name",
    "id",
];

/// Whether a column of this name holds images or their paths.
pub fn is_image_column(name: &str) -> bool {
    IMAGES.iter().any(|known| same(name, known))
}

/// Whether a column has the name that is wanted, in any case; `Image path`, `image-path` and `ImagePath` are
/// `image_path`.
pub fn same(name: &str, wanted: &str) -> bool {
    !name.trim().is_empty() && letters(name).eq(letters(wanted))
}

/// A name without what parts its words.
fn letters(name: &str) -> impl Iterator<Item = u8> {
    let all = name.trim().bytes().filter(|byte| !matches!(byte, b'_' | b' ' | b'-'));
    all.map(|byte| byte.to_ascii_lowercase())
}
