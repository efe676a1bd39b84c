//! Faults of the system, end to end: a source that goes away while a command reads it. What a command
//! then ends with is whole or nothing, and the same command goes on once the source is back.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    common::{Bench, stderr},
    resume::{OPTIONS, faces, grey},
};

/// Runs until `is_far` says so, then moves `from` to `gone`; exit code and what was said.
fn without(
    bench: &Bench,
    line: &str,
    from: &str,
    is_far: impl Fn() -> bool,
) -> (Option<i32>, String) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_far() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    fs::rename(bench.path(from), bench.path("gone")).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn n_files(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// 40 people with so many images that a pack of them in shards of 8 takes a while.
fn many() -> Bench {
    let bench = Bench::new();
    for i in 0..1200_u32 {
        let mut face = grey((i % 250) as u8);
        face.extend(i.to_le_bytes());
        bench.write(&format!("raw/p{:02}/{i}.jpg", i % 40), &face);
    }
    bench
}

#[test]
fn a_source_that_vanishes_stops_a_pack_which_goes_on_when_it_is_back() {
    let bench = many();
    let list: String =
        (0..1200).map(|i| format!("raw/p{0:02}/{i}.jpg\tp{0:02}\n", i % 40)).collect();
    bench.write("list.tsv", list.as_bytes());
    for i in 0..1200 {
        let link = bench.path(&format!("links/p{:02}/{i}.jpg", i % 40));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../raw/p{:02}/{i}.jpg", i % 40), link).unwrap();
    }
    // All of it, one of its folders, and what its links lead to.
    for (input, out, away) in [
        ("raw", "a", "raw"),
        ("list.tsv", "b", "raw"),
        ("raw", "c", "raw/p07"),
        ("list.tsv", "d", "raw/p07"),
        ("links", "e", "raw"),
    ] {
        bench.run(&format!("pack {input} {out}-whole {OPTIONS}")).success();
        let line = format!("pack {input} {out} {OPTIONS} --threads 1");
        let journal = bench.path(&format!("{out}/journal"));
        let (code, text) = without(&bench, &line, away, || n_files(&journal) > 5);
        assert_eq!(code, Some(2), "{input}: {text}");
        let gone = format!("{away}: the folder that the images lie in is gone");
        assert!(text.contains(&gone), "{input}: {text}");
        assert!(text.contains("hint: was it unmounted or renamed?"), "{input}: {text}");
        assert!(!bench.path(&format!("{out}/dataset.json")).exists());
        assert!(n_files(&journal) > 5, "{input}: the journal is kept");
        fs::rename(bench.path("gone"), bench.path(away)).unwrap();
        let text = stderr(&bench.run(&line).success());
        assert!(text.contains("going on: "), "{input}: {text}");
        assert!(bench.tree(out) == bench.tree(&format!("{out}-whole")), "{input}");
        assert!(bench.quarantine(out).is_empty(), "{input}");
    }
}

#[test]
fn a_data_set_that_vanishes_makes_no_half_of_an_export_a_copy_or_a_join() {
    let bench = many();
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    bench.run(&format!("pack raw other {OPTIONS} --seed 4")).success();
    let rows = bench.dataset("data").len();
    bench.write("e.npy", &npy(rows));
    bench.run("clean data --pass many --max-images 20").success();
    for (i, command) in [
        "export data OUT --to folder --threads 1",
        "export data OUT --to recordio --threads 1",
        "compact data OUT",
        "merge OUT data other --match embeddings --embeddings e.npy --embeddings e.npy --same-person 0.9",
    ]
    .into_iter()
    .enumerate()
    {
        let (out, line) = (format!("out{i}"), command.replace("OUT", &format!("out{i}")));
        bench.run(&command.replace("OUT", &format!("whole{i}"))).success();
        let left = bench.path(&format!(".{out}.tmp"));
        let (code, text) = without(&bench, &line, "data", || left.exists());
        // What was opened before stays readable, so that some are whole.
        assert!(matches!(code, Some(0 | 2)), "{command}: {code:?} {text}");
        assert!(code == Some(0) || text.contains("data"), "{command}: {text}");
        assert_eq!(bench.path(&out).exists(), code == Some(0), "{command}");
        fs::rename(bench.path("gone"), bench.path("data")).unwrap();
        if code == Some(2) {
            bench.run(&line).success();
        }
        assert!(bench.tree(&out) == bench.tree(&format!("whole{i}")), "{command}");
        assert!(!left.exists() && !bench.path(&format!(".{out}.lock")).exists(), "{command}");
    }
}

/// Two numbers a row, all different.
pub fn npy(rows: u64) -> Vec<u8> {
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}\n");
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.into_bytes());
    for row in 0..rows {
        npy.extend(((row as f32).sin()).to_le_bytes());
        npy.extend(((row as f32).cos()).to_le_bytes());
    }
    npy
}

/// Runs with at most `n` open files; exit code and what was said.
#[cfg(unix)]
fn with_files(bench: &Bench, n: u32, line: &str) -> (Option<i32>, String) {
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    let output = Command::new("sh")
        .current_dir(bench.path(""))
        .arg("-c")
        .arg(format!("ulimit -n {n} && exec '{}' {line}", program.display()))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn a_process_without_file_descriptors_makes_no_half_of_anything() {
    let bench = faces();
    for worker in 0..2 {
        bench.run(&format!("pack raw part{worker} {OPTIONS} --worker {worker}/2")).success();
    }
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    for (i, command) in [
        format!("pack raw OUT {OPTIONS}"),
        "merge OUT part0 part1".into(),
        "compact data OUT".into(),
        "export data OUT --to folder".into(),
    ]
    .iter()
    .enumerate()
    {
        let whole = format!("whole{i}");
        bench.run(&command.replace("OUT", &whole)).success();
        let mut n_failed = 0;
        for n in 4..40 {
            let out = format!("out{i}-{n}");
            let line = command.replace("OUT", &out);
            let (code, text) = with_files(&bench, n, &line);
            let is_done = code == Some(0);
            // 127: the loader found no descriptor to open a library with.
            assert!(is_done || matches!(code, Some(2 | 127)), "{line} of {n}: {code:?} {text}");
            assert!(!text.contains("panicked") && !text.contains("counts as not done"), "{text}");
            let is_finished = match command.starts_with("pack") || command.starts_with("merge") {
                true => bench.path(&format!("{out}/dataset.json")).exists(),
                false => bench.path(&out).exists(),
            };
            assert_eq!(is_finished, is_done, "{line} of {n}: {text}");
            if !is_done {
                n_failed += 1;
                bench.run(&line).success();
            }
            assert!(bench.tree(&out) == bench.tree(&whole), "{line} of {n}");
        }
        assert!((3..36).contains(&n_failed), "{command}: {n_failed} of 36 failed");
    }
}

/// A flat face of the usual size.
fn face(level: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&[level; 112 * 112], 112, 112, jpeg_encoder::ColorType::Luma)
        .unwrap();
    bytes
}

/// With few file descriptors some opens fail, with enough none. Whatever the number, a command does all
/// that it does with many, or says that it cannot and leaves nothing of a result.
#[cfg(unix)]
#[test]
fn a_process_without_file_descriptors_does_all_or_nothing() {
    let bench = Bench::new();
    let mut list = String::new();
    let mut marks = String::new();
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..12_u8 {
        let name = format!("p{}/{i}.jpg", i % 3);
        let face = face(i * 20);
        bench.write(&format!("raw/{name}"), &face);
        list += &format!("{name}\tperson {}\n", i % 3);
        let template = pfc_image::align::TEMPLATE;
        let points: Vec<String> = template.as_flattened().iter().map(f64::to_string).collect();
        // The extension is to be found.
        marks += &format!("p{}/{i}\t{}\n", i % 3, points.join("\t"));
        for (extension, bytes) in [("jpg", &face[..]), ("cls", &[b'0' + i % 3][..])] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{i}.{extension}"), bytes).unwrap();
        }
    }
    bench.write("raw/list.tsv", list.as_bytes());
    bench.write("marks.txt", marks.as_bytes());
    bench.write("tars/0.tar", &tar.into_inner().unwrap());
    bench.run("pack raw/list.tsv data --shard-rows 4").success();
    bench.run("export data recs --to recordio").success();
    bench.run("export data table --to parquet").success();
    bench.run("clean data --pass many --max-images 3").success();
    let commands = [
        "align marks.txt OUT --root raw",
        "pack raw/list.tsv OUT --shard-rows 5",
        "pack tars OUT",
        // Names are those of a table beside it.
        "pack recs OUT",
        "pack table OUT",
        "export data OUT --to folder",
        "export data OUT --to bin --pairs 20 --as-packed",
        "compact data OUT",
        "verify data --decode",
        "inspect data --json",
    ];
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    for (i, command) in commands.into_iter().enumerate() {
        let run = |out: &str, limit: u32| {
            let line = command.replace("OUT", out);
            let script = format!("ulimit -n {limit}; exec '{}' {line}", program.display());
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).current_dir(bench.path("")).output().unwrap()
        };
        let result = |out: &str| match bench.path(out) {
            path if path.is_dir() => bench.tree(out),
            path => fs::read(&path).into_iter().map(|bytes| (out.into(), bytes)).collect(),
        };
        let whole = run(&format!("whole{i}"), 256);
        assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
        let expected: Vec<Vec<u8>> = result(&format!("whole{i}")).into_values().collect();
        let mut n_stopped = 0;
        for limit in 4..40 {
            let out = format!("out{i}-{limit}");
            let found = run(&out, limit);
            let said = String::from_utf8_lossy(&found.stderr);
            if found.status.success() {
                let files: Vec<Vec<u8>> = result(&out).into_values().collect();
                assert!(files == expected, "{command}, {limit}: another result; {said}");
                assert!(command.contains("OUT") || found.stdout == whole.stdout, "{command}");
                continue;
            }
            n_stopped += 1;
            assert_ne!(found.status.code(), Some(1), "{command}, {limit}: {said}");
            assert_ne!(found.status.code(), Some(101), "{command}, {limit}: {said}");
            let is_whole = ["", "/dataset.json"].iter().any(|name| {
                let path = bench.path(&format!("{out}{name}"));
                path.is_file() || (path.is_dir() && !command.starts_with("pack"))
            });
            assert!(!is_whole, "{command}, {limit}: a result with exit code 2; {said}");
        }
        assert!(n_stopped > 0, "{command}: 4 descriptors are too few for any program");
    }
}

/// A PNG of 16-bit RGBA whose header alone is there.
#[cfg(target_os = "linux")]
fn header_of_png(width: u32, height: u32) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], kind, data, &crc.sum().to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[16, 6, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &header), chunk(b"IDAT", b""), chunk(b"IEND", b"")];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat()
}

/// A picture that the disk fails to read, and one for which there is no memory: neither is left out for it.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_that_the_system_fails_to_read_or_to_decode_stops_a_pack_and_is_not_left_out() {
    let bench = Bench::new();
    for i in 0..4_u8 {
        bench.write(&format!("raw/p{}/{i}.jpg", i % 2), &face(i * 40));
    }
    bench.write("list.tsv", b"raw/p0/0.jpg\tp0\nraw/p0/9.jpg\tp0\n");
    // The memory of a process begins with pages that do not exist: reading them ends with EIO, as on a
    // failing disk.
    let place = bench.path("raw/p0/9.jpg");
    std::os::unix::fs::symlink("/proc/self/mem", &place).unwrap();
    for input in ["raw", "list.tsv"] {
        let text = stderr(&bench.run(&format!("pack {input} of-{input}")).code(2));
        assert!(text.contains("raw/p0/9.jpg: cannot read\n"), "{input}: {text}");
        let hint = "\nhint: the disk or the network that holds raw/p0/9.jpg fails";
        assert!(text.contains(hint), "{input}: {text}");
        assert!(!bench.path(&format!("of-{input}/dataset.json")).exists(), "{input}");
    }
    fs::remove_file(&place).unwrap();
    fs::write(&place, face(200)).unwrap();
    for (input, n_images) in [("raw", 5_u64), ("list.tsv", 2)] {
        let report = bench.json(&format!("pack {input} of-{input} --json"));
        assert_eq!((&report["images"], &report["quarantined"]), (&n_images.into(), &0.into()));
    }

    // Less than the 539 MB that its pixels take: 8 bytes each, and 3 for what is made of them.
    bench.write("raw/p1/9.png", &header_of_png(7000, 7000));
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    let line = "pack raw short --threads 1 --max-left-out 20 --json";
    let script = format!("ulimit -v 520000 && exec '{}' {line}", program.display());
    let mut command = Command::new("sh");
    let short = command.arg("-c").arg(script).current_dir(bench.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&short.stderr);
    assert_eq!(short.status.code(), Some(2), "{text}");
    assert!(text.contains("`p1/9.png` cannot be decoded now"), "{text}");
    assert!(text.contains("there is no memory to decode 7000x7000 pixels"), "{text}");
    assert!(text.contains("\nhint: use fewer threads, raise the memory limit"), "{text}");
    assert!(!bench.path("short/dataset.json").exists());
    // Where there is memory, it is the picture that is at fault.
    let report = bench.json(line);
    assert_eq!((&report["images"], &report["quarantined"]), (&5.into(), &1.into()));
}

/// Runs the program as a user who is not root, to whom alone nothing is denied: as `user` if the tests run as
/// root, else as whoever runs them. `limit` is a line of the shell before it. Nothing where that cannot be had.
#[cfg(unix)]
fn as_somebody(bench: &Bench, user: u32, limit: &str, line: &str) -> Option<(Option<i32>, String)> {
    use std::os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    };
    /// How a shell says that it may not run a program.
    const DENIED: Option<i32> = Some(126);
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    let mut command = Command::new("sh");
    command.current_dir(bench.path("")).arg("-c");
    command.arg(format!("{limit} exec '{}' {line}", program.display()));
    // The folder is given to the other user the first time.
    let owner = fs::metadata(bench.path("")).unwrap().uid();
    if owner == 0 || owner == user {
        if let Err(error) = chown(bench.path(""), Some(user), Some(user)) {
            pfc_testing::skip(&format!("there is no user {user} here: {error}"));
            return None;
        }
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    if output.status.code() == DENIED {
        pfc_testing::skip("the program lies where other users may not go");
        return None;
    }
    Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A user may have so few processes that the first thread cannot be started, or the first of a pool.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_be_started_ends_every_command_with_an_error_and_a_way_out() {
    use std::os::unix::fs::MetadataExt;
    /// Who has no other processes.
    const USER: u32 = 65_533;
    let bench = faces();
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    let before = bench.tree("");
    // A process and the thread that listens for signals count as two, where the user has no others.
    for n in [1, 2] {
        // Shells disagree about the letter.
        let limit = format!("ulimit -u {n} 2> /dev/null || ulimit -p {n} || exit 90;");
        for line in [
            "pack raw out --threads 8",
            "verify data --threads 8",
            "export data out --to folder --threads 8",
            "synth out --identities 2 --images-per-identity 2 --threads 8",
            "merge out data data --by name --threads 8",
            "inspect data",
            "show data --sample 2 -o out.png",
            "compact data out",
            "decisions show data",
            "review export data out",
        ] {
            let Some((code, text)) = as_somebody(&bench, USER, &limit, line) else { return };
            assert_eq!(code, Some(2), "{line}, {n}: {text}");
            let is_alone = fs::metadata(bench.path("")).unwrap().uid() == USER;
            let expected =
                if is_alone && n == 2 { "cannot start " } else { "cannot listen for signals: " };
            assert!(text.contains(expected), "{line}, {n}: {text}");
            assert!(text.contains("\nhint: ") && text.contains("`ulimit -u`"), "{line}: {text}");
            assert!(!text.contains("panicked"), "{line}, {n}: {text}");
        }
    }
    assert!(bench.tree("") == before, "nothing is written or left behind");
}

/// A file alone may be left out; a folder that nobody may enter says nothing of what is in it.
#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_entered_stops_a_pack_and_a_file_that_may_not_be_read_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let mut list = String::new();
    for i in 0..6_u8 {
        bench.write(&format!("raw/p{}/{i}.jpg", i % 3), &grey(i * 40));
        list += &format!("raw/p{}/{i}.jpg\tp{}\n", i % 3, i % 3);
    }
    bench.write("list.tsv", list.as_bytes());
    let allow = |path: &str, mode: u32| {
        fs::set_permissions(bench.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    allow("raw/p1/1.jpg", 0o000);
    allow("raw/p2", 0o000);
    let pack = |out: &str| {
        as_somebody(&bench, 65_534, "", &format!("pack list.tsv {out} --max-left-out 50"))
    };
    let denied = pack("denied");
    allow("raw/p2", 0o755);
    let Some((code, text)) = denied else { return };
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("raw/p2: cannot open the folder"), "{text}");
    assert!(text.contains("hint: raw/p2 is not readable for this user"), "{text}");
    assert!(!bench.path("denied/dataset.json").exists());
    let (code, text) = pack("out").unwrap();
    assert_eq!(code, Some(0), "{text}");
    let quarantined = bench.quarantine("out");
    assert_eq!(quarantined.len(), 1);
    assert_eq!((&*quarantined[0].0, &*quarantined[0].2), ("raw/p1/1.jpg", "unreadable"));
}

/// A person's answers are not dropped because the folder that holds them cannot be listed.
#[cfg(unix)]
#[test]
fn a_replacement_without_file_descriptors_drops_no_decisions() {
    let bench = Bench::new();
    for i in 0..6_u8 {
        bench.write(&format!("raw/p{}/{i}.jpg", i % 3), &grey(i * 40));
    }
    bench.run("pack raw data").success();
    bench.run("clean data --pass many --max-images 1").success();
    let before = bench.tree("data");
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    for limit in 4..40 {
        let script =
            format!("ulimit -n {limit}; exec '{}' pack raw data --force", program.display());
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(bench.path(""));
        assert!(!command.output().unwrap().status.success(), "{limit}");
        let mut after = bench.tree("data");
        after.retain(|path, _| before.contains_key(path));
        assert!(after == before, "{limit}");
    }
}
