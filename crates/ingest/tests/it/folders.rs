//! Folders that commands write: whose they are, what is removed, and two commands at once.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{
    common::{Bench, jpeg, stderr},
    resume::{OPTIONS, faces},
};

/// Every command that writes a folder, which is `OUT` here.
const COMMANDS: [&str; 13] = [
    PACK,
    MERGE,
    "merge OUT whole whole2 --match embeddings --embeddings e.npy --embeddings e.npy --same-person 0.9",
    "merge OUT whole whole2 --by name",
    "review export whole OUT",
    "compact whole OUT",
    "export whole OUT --to folder",
    "export whole OUT --to list",
    "export whole OUT --to recordio",
    "export whole OUT --to webdataset",
    "export whole OUT --to parquet",
    "synth OUT --identities 2 --images-per-identity 2",
    "align marks.txt OUT --root photos",
];

const PACK: &str = "pack raw OUT --size 16 --shard-rows 8";
const MERGE: &str = "merge OUT part0 part1";

/// What all of them read.
fn inputs() -> Bench {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    bench.run(&format!("pack raw whole2 {OPTIONS} --seed 4")).success();
    for i in 0..2 {
        bench.run(&format!("pack raw part{i} {OPTIONS} --worker {i}/2")).success();
    }
    let rows = bench.dataset("whole").len();
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}\n")
        .into_bytes();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header);
    for row in 0..rows {
        npy.extend(((row as f32).sin()).to_le_bytes());
        npy.extend(((row as f32).cos()).to_le_bytes());
    }
    bench.write("e.npy", &npy);
    bench.write("photos/a.jpg", &jpeg(112, 112));
    let marks = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2";
    bench.write("marks.txt", format!("a.jpg {marks}\n").as_bytes());
    bench
}

/// Every path in the bench's folder, hidden ones too; of files the content.
fn all(bench: &Bench) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, found);
                found.insert(path, None);
            } else {
                found.insert(path.clone(), fs::read(path).ok());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&bench.path(""), &mut found);
    found
}

/// Runs a command that must be refused, and checks that it changed nothing.
#[track_caller]
fn refused(bench: &Bench, line: &str, expected: &str) {
    let before = all(bench);
    let text = stderr(&bench.run(line).code(2));
    assert!(text.contains(expected), "{line}: {text}");
    assert!(text.contains("\nhint: "), "{line}: {text}");
    let after = all(bench);
    let changed: Vec<&PathBuf> = before
        .iter()
        .filter(|(path, content)| after.get(*path) != Some(content))
        .map(|c| c.0)
        .collect();
    let new: Vec<&PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && new.is_empty(), "{line}: changed {changed:?}, new {new:?}");
}

#[test]
fn a_folder_is_written_if_it_is_absent_empty_or_left_by_a_killed_command_and_else_nothing_changes()
{
    let bench = inputs();
    for command in COMMANDS {
        // What it writes where nothing is; with a folder above that is missing.
        bench.run(&command.replace("OUT", "w/whole")).success();
        let whole = bench.tree("w/whole");
        refused(&bench, &command.replace("OUT", "w/whole"), "w/whole: already ");
        fs::remove_dir_all(bench.path("w")).unwrap();

        let line = command.replace("OUT", "out");
        fs::create_dir(bench.path("out")).unwrap();
        bench.run(&line).success();
        assert!(bench.tree("out") == whole, "{command}: into an empty folder");
        fs::remove_dir_all(bench.path("out")).unwrap();

        // As a killed command leaves them: the lock file, and half of the result.
        let lock = "pfc lock of process 1\nfills the temporary folder\n";
        bench.write(".out.lock", lock.as_bytes());
        bench.write(".out.tmp/shards/00000.arrow", b"half");
        bench.write(".out.tmp/deep/er/file", b"half");
        if ![PACK, MERGE].contains(&command) {
            bench.run(&line).success();
            assert!(bench.tree("out") == whole, "{command}: after a killed one");
            assert!(!bench.path(".out.tmp").exists() && !bench.path(".out.lock").exists());
            fs::remove_dir_all(bench.path("out")).unwrap();
            // The same folder, but nothing says that it is ours.
            bench.write(".out.tmp/thesis.tex", b"mine");
            refused(&bench, &line, "holds files that pfc did not write: .out.tmp");
        }
        let _ = fs::remove_dir_all(bench.path(".out.tmp"));
        let _ = fs::remove_file(bench.path(".out.lock"));

        // Files of others, on top and below, whatever folders of ours they lie in.
        for foreign in [
            "notes.txt",
            "data/notes.txt",
            "shards/train-000000.tar",
            "shards/00000.arrow",
            "shards/sub/00000.arrow",
            "journal/2026-11.md",
            "journal/00000.json",
            ".hidden/file",
            ".thesis.tmp",
            "identities.arrow",
            "dataset.json.bak",
        ] {
            bench.write(&format!("out/{foreign}"), b"mine");
            refused(&bench, &line, "out: ");
            fs::remove_dir_all(bench.path("out")).unwrap();
        }
        bench.write("out", b"a file");
        refused(&bench, &line, "out: already exists");
        fs::remove_file(bench.path("out")).unwrap();

        // Another process is at work there.
        let lock = fs::File::options().append(true).create(true).open(bench.path(".out.lock"));
        let lock = lock.unwrap();
        lock.lock().unwrap();
        refused(&bench, &line, "out: another command is writing there");
        drop(lock);
        bench.write(".out.lock", b"somebody's notes");
        refused(&bench, &line, "holds files that pfc did not write: .out.lock");
        fs::remove_file(bench.path(".out.lock")).unwrap();
    }
}

/// Without a lock nothing tells whether another command is at work.
#[test]
fn a_lock_that_cannot_be_taken_is_an_error_and_nothing_is_written() {
    let bench = inputs();
    fs::create_dir(bench.path(".out.lock")).unwrap();
    let before = all(&bench);
    for command in COMMANDS {
        let text = stderr(&bench.run(&command.replace("OUT", "out")).code(2));
        assert!(text.contains(".out.lock: cannot lock"), "{command}: {text}");
        assert!(all(&bench) == before, "{command}");
    }
}

/// It writes as the others do; whether a network can run does not matter to what it refuses.
#[test]
fn detect_looks_at_its_output_first_and_takes_none_of_others() {
    let bench = faces();
    let line = "detect raw out --detector none.onnx";
    for foreign in ["notes.txt", "data/notes.txt", "journal/00000.json", ".hidden/file"] {
        bench.write(&format!("out/{foreign}"), b"mine");
        refused(&bench, line, "out: already exists and is not empty");
        refused(&bench, &format!("{line} --restart"), "out: already exists and is not empty");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    bench.write(".out.tmp/thesis.tex", b"mine");
    bench.write(".out.lock", b"somebody's notes");
    refused(&bench, line, "holds files that pfc did not write: .out.lock");
    fs::remove_file(bench.path(".out.lock")).unwrap();
    let lock = fs::File::options().append(true).create(true).open(bench.path(".out.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    refused(&bench, line, "out: another command is writing there");
    drop(lock);
    refused(&bench, "detect raw raw/out --detector none.onnx", "raw/out: lies inside raw");
}

#[test]
fn an_unfinished_pack_is_gone_on_with_by_its_own_command_alone_and_not_with_files_of_others_in_it()
{
    let bench = inputs();
    let own = |bench: &Bench| {
        bench.run(&format!("pack raw out {OPTIONS} --worker 0/2")).success();
    };
    for command in COMMANDS {
        let line = command.replace("OUT", "out");
        let goes_on = command == PACK;
        own(&bench);
        if goes_on {
            for foreign in ["notes.txt", "shards/keep.tar", "journal/notes.md", "shards/a/b"] {
                bench.write(&format!("out/{foreign}"), b"mine");
                refused(&bench, &line, "out: holds files that pfc did not write: ");
                refused(
                    &bench,
                    &format!("{line} --restart"),
                    "holds files that pfc did not write: ",
                );
                let top = foreign.split('/').take(2).collect::<Vec<_>>().join("/");
                let top = bench.path(&format!("out/{top}"));
                let _ = fs::remove_dir_all(&top).or_else(|_| fs::remove_file(&top));
            }
            bench.run(&line).success();
            assert!(bench.tree("out") == bench.tree("whole"));
        } else if command != MERGE {
            refused(&bench, &line, "out: already exists and is not empty");
        }
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
}

#[test]
fn a_finished_data_set_is_replaced_by_pack_with_force_alone() {
    let bench = inputs();
    bench.run(&format!("pack raw out {OPTIONS} --seed 9")).success();
    for command in COMMANDS {
        refused(&bench, &command.replace("OUT", "out"), "out: already ");
    }
    let force = format!("pack raw out {OPTIONS} --force");
    // Files of others, at every level, and a person's decisions.
    for foreign in ["NOTES.txt", "shards/keep.tar", "embeddings/mine.npy", "extra/a.txt"] {
        bench.write(&format!("out/{foreign}"), b"mine");
        refused(&bench, &force, "out: holds files that pfc did not write: ");
        fs::remove_file(bench.path(&format!("out/{foreign}"))).unwrap();
    }
    fs::remove_dir(bench.path("out/extra")).unwrap();
    bench.run("clean out --pass many --max-images 2").success();
    refused(
        &bench,
        &force,
        "out/decisions: holds decisions about the data set that is to be replaced",
    );
    fs::rename(bench.path("out/decisions"), bench.path("answers")).unwrap();
    bench.run("quality out").success();
    for name in ["plain.npy", "plain.sum", "mirrored.npy"] {
        bench.write(&format!("out/embeddings/{:032x}-{name}", 7), b"computed");
    }
    let text = stderr(&bench.run(&force).success());
    let expected = "the old data set, 96 images, 2 files of embeddings and the measures of its quality, \
                    is removed";
    assert!(text.contains(expected), "{text}");
    assert!(bench.tree("out") == bench.tree("whole"));
    assert!(!bench.path(".out.tmp").exists() && !bench.path(".out.lock").exists());
}

#[test]
fn a_pack_without_a_usable_image_and_a_restart_remove_nothing_of_others() {
    let bench = faces();
    bench.write("bad/a/1.jpg", b"no image");
    bench.write("out/shards/keep.tar", b"mine");
    refused(&bench, &format!("pack bad out {OPTIONS}"), "out: holds files that pfc did not write");
    refused(&bench, &format!("pack bad out {OPTIONS} --restart"), "files that pfc did not write");
    fs::remove_dir_all(bench.path("out")).unwrap();
    refused(&bench, &format!("pack bad out {OPTIONS}"), "its only image cannot be read");
    bench.run(&format!("pack raw out {OPTIONS} --worker 0/2")).success();
    let job = fs::read(bench.path("out/journal/job.json")).unwrap();
    let mut flipped = job.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for foreign in [&b"{\"shards\": \"of another program\"}\n"[..], b"", &job[..40], &flipped] {
        bench.write("out/journal/job.json", foreign);
        let line = format!("pack raw out {OPTIONS}");
        for line in [format!("{line} --restart"), line, "merge out out".to_owned()] {
            refused(&bench, &line, "out/journal/job.json: is not a job that pfc wrote");
        }
    }
    bench.write("out/journal/job.json", &job);
    bench.run(&format!("pack bad out {OPTIONS} --restart")).code(2);
    assert!(!bench.path("out/shards/00000.arrow").exists());
}

/// A pack that waits for its list on standard input.
fn waiting(bench: &Bench, options: &str) -> (Child, ChildStdin) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(format!("pack - out {options}").split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    // It has claimed the folder once the lock file says whose it is.
    let is_locked = || fs::read(bench.path(".out.lock")).is_ok_and(|text| text.ends_with(b"\n"));
    while !is_locked() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    (child, stdin)
}

fn list(bench: &Bench) -> Vec<u8> {
    let images = bench.tree("raw").into_keys().filter(|path| path.extension().unwrap() == "jpg");
    let line = |path: PathBuf| {
        let (path, name) =
            (path.display().to_string(), path.parent().unwrap().display().to_string());
        format!("raw/{path}\t{name}\n")
    };
    images.map(line).collect::<String>().into_bytes()
}

#[test]
fn a_second_pack_ends_at_once_while_the_first_still_lists_and_the_first_is_whole() {
    let bench = faces();
    bench.write("list.tsv", &list(&bench));
    for second in [
        format!("pack list.tsv out {OPTIONS}"),
        format!("pack list.tsv out {OPTIONS} --force"),
        format!("pack list.tsv out {OPTIONS} --restart"),
        format!("pack list.tsv out {OPTIONS} --worker 0/2"),
        "merge out".to_owned(),
        "synth out --identities 2 --images-per-identity 2".to_owned(),
    ] {
        let (mut first, mut stdin) = waiting(&bench, &format!("{OPTIONS} --seed 9"));
        let number = first.id();
        refused(&bench, &second, &format!("out: process {number} is writing there"));
        stdin.write_all(&list(&bench)).unwrap();
        drop(stdin);
        assert!(first.wait().unwrap().success());
        bench.run("verify out").success();
        fs::remove_dir_all(bench.path("out")).unwrap();
        assert!(!bench.path(".out.lock").exists());
    }
}

#[test]
fn a_folder_that_got_a_data_set_before_it_was_claimed_is_left_alone_whatever_comes_later() {
    // The list of the second pack arrives after the first one has ended.
    let bench = faces();
    bench.write("list.tsv", &list(&bench));
    bench.run(&format!("pack list.tsv out {OPTIONS}")).success();
    let whole = bench.tree("out");
    let (mut second, mut stdin) = waiting(&bench, &format!("{OPTIONS} --seed 9"));
    let _ = stdin.write_all(&list(&bench));
    drop(stdin);
    let mut text = String::new();
    second.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(2), "{text}");
    assert!(text.contains("out: already holds a data set"), "{text}");
    assert!(bench.tree("out") == whole);
}

#[test]
fn no_command_writes_into_what_it_reads_or_around_it() {
    let bench = inputs();
    std::os::unix::fs::symlink("whole", bench.path("link")).unwrap();
    std::os::unix::fs::symlink("whole/new", bench.path("nowhere")).unwrap();
    for out in ["whole/out", "whole/deep/out", "link/out", "nowhere", "whole", "whole/../whole/x"] {
        for command in COMMANDS {
            let reads = ["compact", "export", "merge OUT whole"];
            if reads.iter().any(|reads| command.starts_with(reads)) {
                refused(
                    &bench,
                    &command.replace("OUT", out),
                    ": lies inside whole, the folder to be",
                );
            }
        }
        refused(&bench, &format!("review export whole {out}"), ": lies inside whole");
    }
    refused(&bench, "pack raw raw/p00/out --size 16", "lies inside raw");
    refused(&bench, "merge part0/out part0 part1", "lies inside part0");
    // The input in the output.
    bench.write("above/raw/a/1.jpg", &jpeg(16, 16));
    refused(
        &bench,
        "pack above/raw above --size 16",
        "above: holds above/raw, which is to be read",
    );
}

/// Permissions of everything below a path, itself included.
fn modes(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::symlink_metadata(path).unwrap();
    found.push((path.to_path_buf(), metadata.permissions().mode() & 0o777));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            modes(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn files_and_folders_have_the_permissions_that_the_umask_leaves() {
    for (umask, file, folder) in [("077", 0o600, 0o700), ("002", 0o664, 0o775)] {
        let bench = inputs();
        let more = [
            "export whole OUT --to bin --pairs 20",
            "show whole -o OUT.png --sample 4",
            "report whole -o OUT.html",
            "clean whole --pass many --max-images 2",
        ];
        for (i, command) in COMMANDS.iter().chain(&more).enumerate() {
            let line = command.replace("OUT", &format!("new/{i}"));
            let program = assert_cmd::cargo::cargo_bin!("pfc-ingest").display();
            let script = format!("umask {umask}; mkdir -p new; exec {program} {line}");
            assert_cmd::Command::new("sh")
                .current_dir(bench.path(""))
                .args(["-c", &script])
                .assert()
                .success();
        }
        let mut found = Vec::new();
        modes(&bench.path("new"), &mut found);
        modes(&bench.path("whole/decisions"), &mut found);
        assert!(found.len() > 100);
        for (path, mode) in found {
            let expected = if path.is_dir() { folder } else { file };
            assert_eq!(mode, expected, "{}: {mode:o}, umask {umask}", path.display());
        }
    }
}

#[test]
fn few_open_files_are_enough_or_the_limit_is_named() {
    let bench = inputs();
    let mut n_done = 0;
    for limit in [8, 12, 16, 24, 32, 64] {
        for command in COMMANDS {
            let line = command.replace("OUT", "out");
            let program = assert_cmd::cargo::cargo_bin!("pfc-ingest").display();
            let script = format!("ulimit -n {limit}; exec {program} {line} --threads 2");
            let script = match command.starts_with("compact") || command.starts_with("review") {
                true => script.replace(" --threads 2", ""),
                false => script,
            };
            let run = assert_cmd::Command::new("sh")
                .current_dir(bench.path(""))
                .args(["-c", &script])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&run.stderr);
            match run.status.code() {
                Some(0) => n_done += 1,
                Some(2) if limit < 64 => {
                    assert!(text.contains("ulimit -n"), "{limit} files, {line}: {text}");
                }
                code => panic!("{limit} files, {line}: {code:?}: {text}"),
            }
            let _ = fs::remove_dir_all(bench.path("out"));
            let _ = fs::remove_dir_all(bench.path(".out.tmp"));
            let _ = fs::remove_file(bench.path(".out.lock"));
        }
    }
    assert!(n_done >= 3 * COMMANDS.len(), "{n_done}");
}

/// Kills a command as soon as it fills its temporary folder; says whether it was in time.
fn kill_early(bench: &Bench, line: &str) -> bool {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let fills = || fs::read_dir(bench.path(".out.tmp")).is_ok_and(|mut dir| dir.next().is_some());
    while !fills() {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{line}");
            return false;
        }
        std::thread::yield_now();
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_command_leaves_what_the_next_one_removes_or_goes_on_with() {
    let bench = inputs();
    let mut n_killed = 0;
    for command in COMMANDS.iter().filter(|command| ![PACK, MERGE].contains(command)) {
        let line = command.replace("OUT", "out");
        bench.run(&line).success();
        fs::rename(bench.path("out"), bench.path("undisturbed")).unwrap();
        for _ in 0..2 {
            n_killed += u32::from(kill_early(&bench, &line));
            let _ = fs::remove_dir_all(bench.path("out"));
        }
        bench.run(&line).success();
        assert!(bench.tree("out") == bench.tree("undisturbed"), "{line}");
        let left = fs::read_dir(bench.path("")).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = left.filter(|n| n.as_encoded_bytes().starts_with(b".")).collect();
        assert!(left.is_empty(), "{line}: {left:?}");
        for folder in ["out", "undisturbed"] {
            fs::remove_dir_all(bench.path(folder)).unwrap();
        }
    }
    assert!(n_killed > 0);
}

#[test]
fn a_name_that_no_data_set_holds_is_refused_before_anything_is_packed() {
    let bench = faces();
    bench.write("list.tsv", format!("raw/p00/00.jpg\t{}\n", "n".repeat(5000)).as_bytes());
    let expected = "the name of an identity has 5000 bytes, at most 4096 are possible: `nnnn";
    refused(&bench, &format!("pack list.tsv out {OPTIONS}"), expected);
}

#[test]
fn a_stopped_pack_says_where_it_went_on() {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    bench.run(&format!("pack raw out {OPTIONS} --worker 1/2")).success();
    // What a kill between the claim and the job leaves, and one between the job and its lists.
    for lost in ["journal/labels.jsonl", "journal/left_out.jsonl"] {
        fs::remove_file(bench.path("out").join(lost)).unwrap();
    }
    // A merge that was killed there as well.
    for i in 0..2 {
        bench.run(&format!("pack raw part{i} {OPTIONS} --worker {i}/2")).success();
    }
    let job = fs::read(bench.path("part0/journal/job.json")).unwrap();
    bench.write("merged/journal/job.json", &job);
    bench.run("merge merged part0 part1").success();
    assert!(bench.tree("merged") == bench.tree("whole"));
    let run = bench.run(&format!("pack raw out {OPTIONS}")).success();
    let lines = BufReader::new(&*run.get_output().stderr).lines().map(Result::unwrap);
    assert_eq!(lines.filter(|line| line.contains("going on: 7 of 13 shards")).count(), 1);
    assert!(bench.tree("out") == bench.tree("whole"));
    fs::remove_dir_all(bench.path("out")).unwrap();
    bench.write("out/journal/.job.json.abcdef.tmp", b"half");
    bench.run(&format!("pack raw out {OPTIONS}")).success();
    assert!(bench.tree("out") == bench.tree("whole"));
}
