//! Bad input to `pack`: exit code 2, a message that says what and where, and the way out.

use crate::common::{Bench, jpeg, stderr};

#[track_caller]
fn check(bench: &Bench, line: &str, expected: &str) {
    let text = stderr(&bench.run(line).code(2));
    assert_eq!(text.trim_end(), expected);
}

#[test]
fn a_folder_without_images() {
    let bench = Bench::new();
    bench.write("raw/a/notes.txt", b"nothing here");
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: raw: no identity folder with images in it; it holds 1 .txt file

hint: put the images of each identity in a folder of its own, as in raw/NAME/1.jpg",
    );
    assert!(!bench.path("data").exists());
}

#[test]
fn what_a_folder_without_images_holds_is_named() {
    let said = |files: &[(&str, &[u8])]| {
        let bench = Bench::new();
        std::fs::create_dir(bench.path("raw")).unwrap();
        files.iter().for_each(|(name, bytes)| bench.write(&format!("raw/{name}"), bytes));
        stderr(&bench.run("pack raw data").code(2))
    };
    let text = said(&[]);
    assert!(text.contains("with images in it; there is no file in it\n"), "{text}");
    let files = ["a/1.mp4", "a/2.mp4", "b/3.MP4", "b/notes.txt", "README", ".DS_Store"];
    let text = said(&files.map(|name| (name, &b"x"[..])));
    let expected = "; it holds 3 .mp4 files, 1 .txt file, 1 other file and 1 system file\n";
    assert!(text.contains(expected), "{text}");
    // What is known gets its own way out.
    for (name, bytes, expected) in [
        ("a/x.h5", &b"\x89HDF\r\n\x1a\n"[..], "raw/a/x.h5: is an HDF5 file, which is not read"),
        ("faces.npy", b"\x93NUMPY\x01\0", "raw/faces.npy: is a NumPy array, which is not read"),
        ("f.7z", b"7z\xbc\xaf\x27\x1c", "hint: `7z x raw/f.7z -oFOLDER` unpacks it"),
        ("t.bin", b"version https://git-lfs.github.com/spec/v1\n", "fetch it with `git lfs pull`"),
    ] {
        let text = said(&[("README.md", b"about"), (name, bytes)]);
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn images_directly_in_the_folder() {
    let bench = Bench::new();
    bench.write("raw/1.jpg", &jpeg(112, 112));
    bench.write("raw/2.jpg", &jpeg(112, 112));
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: raw: no identity folder with images in it; it holds 2 images

hint: 2 images lie directly in raw: put those of each identity in a folder of its own, as in \
raw/NAME/1.jpg, or give the folder above",
    );
}

#[test]
fn an_identity_inside_another() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.write("raw/a/b/c/1.jpg", &jpeg(112, 112));
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: `a/b/c` lies inside `a`, and both hold images, so that it is unclear which is the identity

hint: an identity is a folder of images without further identities in it: move the images that lie \
directly in `a` to a folder of their own",
    );
}

#[test]
fn no_such_folder() {
    check(
        &Bench::new(),
        "pack raw data",
        "error: cannot pack `raw`
  cause: raw: there is no such file or folder

hint: is the path right?",
    );
}

#[test]
fn a_file_in_place_of_a_folder() {
    let bench = Bench::new();
    bench.write("faces.zip", b"PK");
    check(
        &bench,
        "pack faces.zip data",
        "error: cannot pack `faces.zip`
  cause: faces.zip: no zip archive ends here: the file is cut short, or is another kind of file

hint: is the copy complete? If it is, the program that wrote it can write the images to folders, one \
per identity, or to a list",
    );
    bench.write("faces.dat", b"hello");
    check(
        &bench,
        "pack faces.dat data",
        "error: cannot pack `faces.dat`
  cause: faces.dat: neither its name nor its first bytes say what it is

hint: say what it is with --from: recordio, list, tar, zip, parquet, bin, tfrecord or lmdb; or give a \
folder with one sub-folder of images per identity, as in faces/NAME/1.jpg",
    );
}

#[test]
fn an_output_that_holds_a_data_set() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.run("pack raw data").success();
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: data: already holds a data set

hint: choose another folder, or give --force to replace data once the new one is complete",
    );
}

#[test]
fn an_output_that_holds_something_else_even_by_force() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.write("data/thesis.tex", b"");
    check(
        &bench,
        "pack raw data --force",
        "error: cannot pack `raw`
  cause: data: holds files that pfc did not write: thesis.tex

hint: move them out of data or choose another folder: only what pfc wrote is ever removed",
    );
    assert!(bench.path("data/thesis.tex").exists());
}

#[test]
fn an_output_inside_the_input() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    check(
        &bench,
        "pack raw raw/../raw/data",
        "error: cannot pack `raw`
  cause: raw/../raw/data: lies inside raw, the folder to be read

hint: choose a folder outside the input",
    );
}

#[test]
fn nothing_that_can_be_read() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112)[..100]);
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: raw: its only image cannot be read

hint: the first one: a/1.jpg: the file is cut short",
    );
    assert!(!bench.path("data").exists());
}

#[cfg(unix)]
#[test]
fn a_folder_without_end() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    std::os::unix::fs::symlink("..", bench.path("raw/a/up")).unwrap();
    check(
        &bench,
        "pack raw data",
        "error: cannot pack `raw`
  cause: raw/a/up: is a link back to raw, so the folder has no end

hint: remove the link raw/a/up",
    );
}

#[test]
fn an_option_out_of_range_is_a_usage_error() {
    let of_pack = [
        "--size 0",
        "--quality 101",
        "--shard-mib 0",
        "--order sorted",
        "--fit zoom",
        "--threads 1025",
        "--max-left-out nan",
    ];
    let of_clean = ["--near-levels nan", "--min-sharpness inf", "--min-aspect 9", "--threads 1025"];
    let lines = of_pack.iter().map(|option| format!("pack raw data {option}"));
    for line in lines.chain(of_clean.iter().map(|option| format!("clean data {option}"))) {
        let said = stderr(&Bench::new().run(&line).code(2));
        assert!(said.contains("error: invalid value '"), "{line}: {said}");
    }
}
