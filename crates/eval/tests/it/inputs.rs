//! Pictures and folders that are not as they should be, through the program: turned, cut short, named in
//! another encoding, beside what systems leave behind; made-up ones, and the kept cases where these are
//! at hand.

use std::{fs, path::Path};

use crate::support::{LfwLike, pfc_eval, stderr_of_failure};

/// `TIFF` block with an orientation, as the APP1 segment of a JPEG.
fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut block =
        b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &block, &jpeg[2..]].concat()
}

fn jpeg(image: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    image.write_with_encoder(encoder).unwrap();
    bytes
}

#[track_caller]
fn cosine(dir: &Path, pictures: [&str; 2], model: &str) -> f64 {
    let args = ["compare", pictures[0], pictures[1], "--model", model];
    let output = pfc_eval(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A copy of the kept case, whose `probe.onnx` embeds; none without the case or onnxruntime.
fn case(name: &str) -> Option<tempfile::TempDir> {
    let from = pfc_testing::case(name)?;
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    pfc_testing::copy_folder(&from, dir.path());
    Some(dir)
}

/// A face that no turn leaves as it is.
fn upright(set: &LfwLike) -> image::RgbImage {
    let mut face = image::open(set.path("faces/P00/P00_0001.png")).unwrap().into_rgb8();
    for (x, y, pixel) in face.enumerate_pixels_mut() {
        if x > 2 * y {
            pixel.0 = [250, 30, 10];
        }
    }
    face
}

#[test]
fn compare_sees_a_picture_upright_whatever_its_exif_says() {
    use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
    let set = LfwLike::new();
    set.model();
    let face = upright(&set);
    face.save(set.path("up.png")).unwrap();
    // What is stored, so that the turn that each number asks for shows the face.
    let stored = [
        face.clone(),
        flip_horizontal(&face),
        rotate180(&face),
        flip_vertical(&face),
        flip_horizontal(&rotate90(&face)),
        rotate270(&face),
        flip_horizontal(&rotate270(&face)),
        rotate90(&face),
    ];
    for (orientation, stored) in (1..).zip(stored) {
        fs::write(set.path("turned.jpg"), with_exif(&jpeg(&stored), orientation)).unwrap();
        fs::write(set.path("plain.jpg"), jpeg(&stored)).unwrap();
        let seen = cosine(set.dir.path(), ["up.png", "turned.jpg"], "run.ckpt");
        let plain = cosine(set.dir.path(), ["up.png", "plain.jpg"], "run.ckpt");
        assert!(seen > 0.999, "orientation {orientation}: {seen}");
        // The mirror image is added to each embedding, so that a mirrored face is the same.
        assert!(orientation <= 2 || plain < seen, "orientation {orientation}: {plain} and {seen}");
    }
    let Some(case) = case("eval-exif-open") else { return };
    let seen = cosine(case.path(), ["up.jpg", "exif6.jpg"], "probe.onnx");
    assert!(seen >= 0.99, "{seen}");
}

#[test]
fn a_picture_that_is_cut_short_is_refused_by_name_in_every_command() {
    let set = LfwLike::new();
    set.model();
    let whole = jpeg(&upright(&set));
    fs::write(set.path("whole.jpg"), &whole).unwrap();
    fs::write(set.path("trunc.jpg"), &whole[..whole.len() * 55 / 100]).unwrap();
    let compare = ["compare", "whole.jpg", "trunc.jpg", "--model", "run.ckpt"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(compare));
    assert!(error.contains("trunc.jpg: cannot decode the image"), "{error}");

    fs::create_dir(set.path("some")).unwrap();
    for name in ["whole.jpg", "trunc.jpg"] {
        fs::copy(set.path(name), set.path("some").join(name)).unwrap();
    }
    let embed = ["embed", "some", "a.npy", "--model", "run.ckpt"];
    pfc_eval(set.dir.path()).args(embed).assert().code(1);
    let list = fs::read_to_string(set.path("a.npy.left-out.tsv")).unwrap();
    assert!(list.lines().nth(1).unwrap().starts_with("trunc.jpg\t"), "{list}");

    fs::write(set.path("list.txt"), "whole.jpg\ntrunc.jpg\n").unwrap();
    let megaface = ["megaface", "embed", "--images", "some", "--list", "list.txt", "--out", "f"];
    let more = ["--suffix", "_x.bin", "--model", "run.ckpt"];
    let run = pfc_eval(set.dir.path()).args(megaface).args(more).assert().code(1);
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("trunc.jpg: left out: "), "{said}");
    let list = || fs::read_to_string(set.path("f/left-out.tsv")).unwrap();
    assert!(list().starts_with("image without a feature\treason\ntrunc.jpg\t"), "{}", list());
    // Without a word the same is found and listed.
    fs::remove_file(set.path("f/left-out.tsv")).unwrap();
    pfc_eval(set.dir.path()).args(megaface).args(more).arg("-q").assert().code(1);
    assert_eq!(list().lines().count(), 2);
    assert!(set.path("f/whole.jpg_x.bin").exists() && !set.path("f/trunc.jpg_x.bin").exists());

    let Some(case) = case("eval-truncated-jpeg-open") else { return };
    let compare = ["compare", "whole.jpg", "trunc.jpg", "--model", "probe.onnx"];
    let error = stderr_of_failure(pfc_eval(case.path()).args(compare));
    assert!(error.contains("trunc.jpg: cannot decode the image"), "{error}");
}

/// What `embed` says of itself in JSON, with the exit code.
#[track_caller]
fn embedded(dir: &Path, args: &[&str], code: i32) -> serde_json::Value {
    let run = pfc_eval(dir).arg("embed").args(args).args(["--json", "--force"]).assert().code(code);
    serde_json::from_slice(&run.get_output().stdout).unwrap()
}

#[test]
fn a_folder_is_embedded_as_it_would_be_packed_and_what_is_not_is_counted() {
    let set = LfwLike::new();
    set.model();
    let face = set.jpeg("P00/P00_0001.png");
    for path in ["a/1.jpg", "a/2.jfif", "a/3", "b/4.jpe", "b/deep/er/5.jpg", "6.jpg"] {
        let path = set.path("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &face).unwrap();
    }
    for path in ["__MACOSX/a/1.jpg", "a/.ipynb_checkpoints/1.jpg", "b/._4.jpe", "notes.txt"] {
        let path = set.path("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_text = pfc_testing::has_extension(&path, "txt");
        fs::write(path, if is_text { b"text" } else { &face[..] }).unwrap();
    }
    let args = ["tree", "a.arrow", "--model", "run.ckpt", "--names", "names.txt"];
    let report = embedded(set.dir.path(), &args, 0);
    assert_eq!((&report["images"], &report["left_out"]), (&6.into(), &0.into()));
    let names = fs::read_to_string(set.path("names.txt")).unwrap();
    assert_eq!(names, "6.jpg\na/1.jpg\na/2.jfif\na/3\nb/4.jpe\nb/deep/er/5.jpg\n");
    let run = pfc_eval(set.dir.path()).arg("embed").args(args).arg("--force").assert().success();
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("tree: 4 files or folders are no images"), "{said}");
    let Some(case) = case("eval-folder-skips") else { return };
    let report = embedded(case.path(), &["tree", "a.arrow", "--model", "probe.onnx"], 0);
    assert_eq!((&report["images"], &report["left_out"]), (&6.into(), &0.into()));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_cost_their_own_images_and_not_the_folder_that_they_lie_in() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let set = LfwLike::new();
    set.model();
    let face = set.jpeg("P00/P00_0001.png");
    // The whole set lies in a folder whose name is not UTF-8 either.
    let root = set.path("").join(OsStr::from_bytes(b"J\xf6rg"));
    fs::create_dir_all(root.join(OsStr::from_bytes(b"Jos\xe9"))).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"Jos\xe9/1.jpg")), &face).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"\xe9.jpg")), &face).unwrap();
    fs::write(root.join("1.jpg"), &face).unwrap();
    let mut command = pfc_eval(set.dir.path());
    command.arg("embed").arg(&root).args(["a.npy", "--model", "run.ckpt", "--json"]);
    let run = command.assert().code(1);
    let report: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert_eq!((&report["images"], &report["left_out"]), (&1.into(), &2.into()));
    let list = fs::read_to_string(set.path("a.npy.left-out.tsv")).unwrap();
    assert_eq!(list.matches("\tits name is not valid UTF-8\n").count(), 2, "{list}");
    // LFW's list leaves the extension open.
    let people = root.join("people");
    fs::rename(set.path("faces"), &people).unwrap();
    let mut lfw = pfc_eval(set.dir.path());
    lfw.args(["lfw", "--pairs", "pairs.txt", "--model", "run.ckpt", "--bootstrap", "0", "--data"]);
    lfw.arg(&people).assert().success();
}

#[test]
fn a_list_may_hold_labels_or_paths_alone_and_start_anywhere() {
    let set = LfwLike::new();
    set.model();
    for (name, text, images) in [
        ("paths.txt", "P00/P00_0001.png\nP01/P01_0002.png\n", 2),
        ("labels.tsv", "P00/P00_0001.png\t7.0\nP01/P01_0002.png\tnan\n", 2),
        ("header.csv", "file_name,class\nP00/P00_0001.png,7\nP01/P01_0002.png,\n", 2),
        ("im2rec.lst", "0\t7\tP00/P00_0001.png\n1\t8\tP01/P01_0002.png\n", 2),
        ("windows.txt", "\u{feff}P00\\P00_0001.png 7\r\nP01\\P01_0002.png 8\r\n", 2),
        ("devkit.json_2_1", r#"{"path": ["P00/P00_0001.png", "P01/P01_0002.png"]}"#, 2),
        ("facescrub_lst", "P00/P00_0001.png\nP01/P01_0002.png\nP02/P02_0003.png\n", 3),
    ] {
        fs::write(set.path(name), text).unwrap();
        let args =
            [name, "a.npy", "--root", "faces", "--model", "run.ckpt", "--names", "names.txt"];
        let report = embedded(set.dir.path(), &args, 0);
        assert_eq!(report["images"], images, "{name}");
        let names = fs::read_to_string(set.path("names.txt")).unwrap();
        assert!(names.starts_with("P00/P00_0001.png\nP01/P01_0002.png\n"), "{name}: {names}");
    }
    fs::write(set.path("gone.txt"), "P00/P00_0001.png\nP00/gone.png\n").unwrap();
    let args = ["gone.txt", "a.npy", "--root", "faces", "--model", "run.ckpt"];
    assert_eq!(embedded(set.dir.path(), &args, 1)["left_out"], 1);
    let list = fs::read_to_string(set.path("a.npy.left-out.tsv")).unwrap();
    assert!(list.ends_with("P00/gone.png\tthere is no such file\n"), "{list}");
    let args = ["embed", "faces", "b.npy", "--root", "faces", "--model", "run.ckpt"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
    assert!(error.contains("--root is the folder of the images of a list"), "{error}");
    fs::create_dir(set.path("none")).unwrap();
    fs::write(set.path("none/notes.txt"), "x").unwrap();
    let args = ["embed", "none", "b.npy", "--model", "run.ckpt"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
    assert!(error.contains("none: no image is in it") && error.contains("\nhint: "), "{error}");
}

#[test]
fn one_bad_file_is_left_out_and_the_rest_stays_good_in_the_kept_case() {
    let Some(case) = case("embed-bad-file-loses-all") else { return };
    let args = ["faces", "o.npy", "--model", "probe.onnx"];
    let report = embedded(case.path(), &args, 1);
    assert_eq!(report["left_out"], 1);
    let list = fs::read_to_string(case.path().join("o.npy.left-out.tsv")).unwrap();
    assert!(list.contains("p2/2.jpg\t"), "{list}");
    let images = report["images"].as_u64().unwrap();
    fs::copy(case.path().join("faces/p2/1.jpg"), case.path().join("faces/p2/2.jpg")).unwrap();
    assert_eq!(embedded(case.path(), &args, 0)["images"], images + 1);
}

#[test]
fn commas_between_pairs_and_tabs_after_names_are_read_in_the_kept_cases() {
    if let Some(case) = case("pairs-commas") {
        let args = ["pairs", "--data", "faces", "--pairs", "commas.txt", "--model", "probe.onnx"];
        pfc_eval(case.path()).args(args).args(["--bootstrap", "0"]).assert().success();
    }
    if let Some(case) = case("nn-labels-open") {
        let args = ["nn", "--features", "e.npy", "--labels", "tab.txt"];
        pfc_eval(case.path()).args(args).assert().success();
    }
}

#[test]
fn a_missing_list_of_megaface_is_asked_for_by_its_own_option() {
    let set = LfwLike::new();
    set.model();
    let args = ["megaface", "embed", "--images", "faces", "--out", "o", "--suffix", "_x.bin"];
    let error =
        stderr_of_failure(pfc_eval(set.dir.path()).args(args).args(["--model", "run.ckpt"]));
    let (cause, hint) = error.split_once("\nhint: ").unwrap();
    assert!(cause.contains("faces: a folder, and no list of its images is given"), "{error}");
    assert!(hint.contains("--list") && !hint.contains("--pairs"), "{error}");
    // The way out works.
    fs::write(set.path("list.txt"), "P00/P00_0001.png\n").unwrap();
    let more = ["--model", "run.ckpt", "--list", "list.txt"];
    pfc_eval(set.dir.path()).args(args).args(more).assert().success();
}
