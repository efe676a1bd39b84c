//! Class centres of runs: in files beside the run, damaged there, taken out and put into other runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use clap::Parser;
use pfc_cli::interrupt::{self, Signal};
use pfc_model::{
    centres::{CentreFiles, CentreWriter},
    checkpoint::{Checkpoint, Manifest, Writer},
};
use pfc_train::Cli;
use support::run::{
    Setup, as_strs, check_same, checkpoint, finish, program, refused, sets, signal,
};

/// 18 images make 4 batches of 4 an epoch, 12 steps in all, saved after every third.
fn setup() -> Setup {
    Setup::new(3)
}

fn in_files(folder: &Path) -> Vec<String> {
    sets(&[&format!("head.centres={{ file = \"{}\" }}", folder.display())])
}

fn export(model: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("export").arg(model).arg("--centres").args(more);
    command
}

/// All centres of an exported matrix.
fn matrix(path: &Path) -> Vec<f32> {
    let mut files = CentreFiles::open(path).unwrap();
    let n_rows = files.n_rows();
    files.read(0..n_rows).unwrap()
}

/// The centres of a run's last checkpoint, by way of `export`.
fn exported(setup: &Setup, run: &Path, name: &str) -> Vec<f32> {
    let file = setup.out(name);
    let more = ["--to", "safetensors", "--out", file.to_str().unwrap()];
    finish(export(&run.join("last.ckpt"), &more));
    matrix(&file)
}

fn check_close(found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error <= bound * largest, "{error} of {largest}");
}

#[test]
fn centres_in_files_are_exported_as_those_in_memory_are_for_any_number_of_ranks() {
    let setup = setup();
    let [memory, files] = ["memory", "files"].map(|name| setup.out(name));
    setup.finish(&memory, &[]);
    setup.finish(&files, &as_strs(&in_files(&setup.out("kept"))));
    let expected = exported(&setup, &memory, "memory.safetensors");
    assert_eq!(expected.len(), 6 * 32);
    let found = exported(&setup, &files, "files.safetensors");
    // Updates that were put off are made up for at other steps, which rounds otherwise, and training
    // makes more of it, as `check_same_course` says.
    check_close(&found, &expected, 2e-3);

    for ranks in ["1", "4"] {
        let folder = setup.out(&format!("torch-{ranks}"));
        let more = ["--to", "pth", "--ranks", ranks, "--out", folder.to_str().unwrap()];
        finish(export(&files.join("last.ckpt"), &more));
        assert_eq!(matrix(&folder), found, "{ranks} ranks");
        let names = fs::read_dir(&folder).unwrap().count();
        assert_eq!(names.to_string(), ranks);
    }
    // Six centres on four ranks: 2, 2, 1 and 1, as arcface_torch spreads them.
    let second = setup.out("torch-4/softmax_fc_gpu_1.pt");
    assert_eq!(matrix(&second), found[2 * 32..4 * 32]);

    // The folder was moved.
    let moved = setup.out("moved");
    fs::rename(setup.out("kept"), &moved).unwrap();
    let out = setup.out("again.safetensors");
    let more = ["--to", "safetensors", "--out", out.to_str().unwrap()];
    let said = refused(export(&files.join("last.ckpt"), &more));
    assert!(said.contains("kept/centres.json: is missing, but the checkpoint needs it"), "{said}");
    let more = [&more[..], &["--centres-in", moved.to_str().unwrap()]].concat();
    finish(export(&files.join("last.ckpt"), &more));
    assert_eq!(matrix(&out), found);
}

#[test]
fn a_run_begins_with_centres_of_files_whoever_wrote_them() {
    let setup = setup();
    let files = setup.out("files");
    setup.finish(&files, &as_strs(&in_files(&setup.out("kept"))));
    let expected = exported(&setup, &files, "files.safetensors");
    let torch = setup.out("torch");
    let more = ["--to", "pth", "--ranks", "2", "--out", torch.to_str().unwrap()];
    finish(export(&files.join("last.ckpt"), &more));
    // Nothing moves them from where they begin.
    let still = ["train.epochs=1", "head.weight_decay=0", "optim.lr=1e-12", "optim.momentum=0"];
    let begins = |name: &str, sets_of_it: &[String]| -> Vec<f32> {
        let out = setup.out(name);
        let still = still.iter().map(|set| format!("--set={set}"));
        let sets: Vec<String> =
            sets_of_it.iter().map(|set| format!("--set={set}")).chain(still).collect();
        let said = setup.finish(&out, &as_strs(&sets));
        assert!(said.contains("6 of 6 centres of the first rank"), "{said}");
        exported(&setup, &out, &format!("{name}.safetensors"))
    };
    let last = files.join("last.ckpt").display().to_string();
    let data = format!("init.data={}", setup.out("data").display());
    let by_name = [format!("init.model={last}"), data.clone()];
    let of_torch = [format!("init.centres={}", torch.display())];
    let of_torch_by_name = [of_torch[0].clone(), data];
    let of_matrix = [format!("init.centres={}", setup.out("files.safetensors").display())];
    let of_run = [format!("init.centres={last}")];
    let all: [(&str, &[String]); 5] = [
        ("by-name", &by_name),
        ("of-torch", &of_torch),
        ("of-torch-by-name", &of_torch_by_name),
        ("of-matrix", &of_matrix),
        ("of-run", &of_run),
    ];
    for (name, sets) in all {
        check_close(&begins(name, sets), &expected, 1e-5);
    }
    // Of five people, and this data set has six.
    let mut writer = CentreWriter::safetensors(&setup.out("five.safetensors"), 5, 32).unwrap();
    writer.append(&[0.5; 5 * 32], 32).unwrap();
    writer.finish().unwrap();
    let set = format!("--set=init.centres={}", setup.out("five.safetensors").display());
    let said = refused(setup.command(&setup.out("five"), &[&set]));
    assert!(said.contains("five.safetensors with 5 centres"), "{said}");
    assert!(said.contains("centres of 6 identities, as this data set has"), "{said}");
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    all.sort();
    all
}

#[test]
fn a_damaged_file_of_centres_ends_the_run_by_name_and_the_checkpoint_before_goes_on() {
    let setup = setup();
    let [whole, out, kept] = ["whole", "run", "kept"].map(|name| setup.out(name));
    let more = |folder: &Path, more: &[&str]| -> Vec<String> {
        in_files(folder).into_iter().chain(more.iter().map(|&word| word.to_owned())).collect()
    };
    setup.finish(&whole, &as_strs(&more(&setup.out("of-whole"), &[])));
    setup.finish(&out, &as_strs(&more(&kept, &[])));
    let resume = more(&kept, &["--resume"]);
    let sound = contents(&kept);
    let restore = || {
        for (path, bytes) in &sound {
            fs::write(path, bytes).unwrap();
        }
    };
    // The newest checkpoint has its centres here, whatever becomes of the file.
    let name = |kind: &str| kept.join(format!("{kind}-0-6-1"));
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage<'_>; 4] = [
        ("rows", Box::new(|| fs::remove_file(name("rows")).unwrap())),
        ("places", Box::new(|| fs::remove_file(name("places")).unwrap())),
        ("times", Box::new(|| fs::write(name("times"), "{}").unwrap())),
        (
            "places",
            Box::new(|| {
                let mut bytes = fs::read(name("places")).unwrap();
                bytes[1] ^= 1;
                fs::write(name("places"), bytes).unwrap();
            }),
        ),
    ];
    for (kind, damage) in &damages {
        damage();
        let said = refused(setup.command(&out, &as_strs(&resume)));
        assert!(said.contains(&name(kind).display().to_string()), "{said}");
        assert!(said.contains("step-00000012.ckpt: its centres in files are damaged"), "{said}");
        assert!(checkpoint(&out, 12).is_dir(), "it was set aside");
        restore();
    }
    // The checksum of a copy that was written after step 9: the checkpoint of that step needs another.
    let mut bytes = fs::read(name("places")).unwrap();
    let time = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let copies = (0..bytes.len() / 32).flat_map(|place| (0..3).map(move |copy| (place, copy)));
    let time_of = |(place, copy): &(usize, usize)| time(&bytes, place * 32 + 8 + 4 * copy);
    let (place, copy) = copies.max_by_key(time_of).unwrap();
    assert!(time_of(&(place, copy)) > 10);
    bytes[place * 32 + 20 + 4 * copy] ^= 1;
    fs::write(name("places"), bytes).unwrap();
    // The hint names the way out, which works as it stands.
    let said = refused(setup.command(&out, &as_strs(&resume)));
    let (_, way_out) = said.split_once("the same command with `--resume-from ").unwrap();
    let (step, _) = way_out.split_once('`').unwrap();
    assert_eq!(step, "9");
    let from = more(&kept, &["--resume-from", step]);
    let said = setup.finish(&out, &as_strs(&from));
    assert!(said.contains("step-00000012.ckpt is now "), "{said}");
    assert!(said.contains(", going on after step 9"), "{said}");
    assert!(out.join("checkpoints/step-00000012.ckpt.newer-1").is_dir());
    check_same_but_for_the_folder(&setup, &out, &whole);
}

/// Checkpoints of centres in files name sums that do not depend on the folder.
fn check_same_but_for_the_folder(setup: &Setup, out: &Path, whole: &Path) {
    check_same(out, whole);
    let found = exported(setup, out, "found.safetensors");
    assert_eq!(found, exported(setup, whole, "expected.safetensors"));
}

/// Copies a checkpoint, with a number in each of two files that is none.
fn spoil(from: &Path, to: &Path, spoilt: [&str; 2]) {
    let checkpoint = Checkpoint::open(from).unwrap();
    let Manifest { backbone, progress, files, .. } = checkpoint.manifest().clone();
    let mut writer = Writer::create(to).unwrap();
    for entry in files {
        let tensors = checkpoint.tensors(&entry.name).unwrap();
        if spoilt.contains(&entry.name.as_str()) {
            let (_, tensor) = tensors.iter().find(|(_, t)| t.is_floating_point()).unwrap();
            let _ = tensor.view(-1).get(0).fill_(f64::NAN);
        }
        writer.tensors(&entry.name, &tensors).unwrap();
    }
    writer.finish(backbone, progress).unwrap();
}

#[test]
fn verify_reads_every_byte_and_number_of_a_checkpoint_and_of_its_centres_in_files() {
    let setup = setup();
    let [out, kept] = ["run", "kept"].map(|name| setup.out(name));
    // Every centre moves in the one step.
    let own = ["train.steps=1", "optim.warmup_epochs=0", "eval.sets=[]", "head.sample_rate=1"];
    let more = [sets(&own), in_files(&kept)].concat();
    setup.finish(&out, &as_strs(&more));
    let verify = |model: &Path| {
        let mut command = Command::new(program());
        command.arg("verify").arg(model).arg("--json");
        command
    };
    let verified = |model: &Path| -> (Option<i32>, serde_json::Value) {
        let output = verify(model).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {said}")))
    };
    let last = out.join("last.ckpt");
    let (code, report) = verified(&last);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["clean"] == true && report["step"] == 1 && report["centres"] == 6, "{report}");

    let names = ["backbone.safetensors", "optimizer.safetensors"];
    let spoilt = setup.out("spoilt.ckpt");
    spoil(&last, &spoilt, names);
    let (code, report) = verified(&spoilt);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(2), "{report}");
    for (finding, name) in report["findings"].as_array().unwrap().iter().zip(names) {
        let finding = finding.as_str().unwrap();
        let path = spoilt.join(name).display().to_string();
        assert!(finding.starts_with(&path) && finding.contains(" not finite"), "{finding}");
    }
    // What is wrong with the network keeps nobody from reading the centres.
    assert!(report["clean"] == false && report["centres"] == 6, "{report}");

    // A bit of the copy that the checkpoint needs of the first row: the one that was written.
    let name = |kind: &str| kept.join(format!("{kind}-0-6-1"));
    let (places, mut rows) = (fs::read(name("places")).unwrap(), fs::read(name("rows")).unwrap());
    let copy = (0..3).find(|copy| places[8 + 4 * copy..12 + 4 * copy] != [0; 4]).unwrap();
    let copy_bytes = rows.len() / (6 * 3);
    rows[copy * copy_bytes] ^= 1;
    fs::write(name("rows"), rows).unwrap();
    let (code, report) = verified(&last);
    assert_eq!(code, Some(1), "{report}");
    let finding = report["findings"][0].as_str().unwrap();
    assert!(finding.starts_with(&name("rows").display().to_string()), "{finding}");

    let said = refused(verify(&setup.out("absent.ckpt")));
    assert!(said.contains("absent.ckpt: not a checkpoint: there is no such folder"), "{said}");
}

#[test]
fn a_damaged_newest_checkpoint_of_centres_in_files_leaves_the_one_before() {
    let setup = setup();
    let [whole, out] = ["whole", "run"].map(|name| setup.out(name));
    setup.finish(&whole, &as_strs(&in_files(&setup.out("of-whole"))));
    let mut more = in_files(&setup.out("kept"));
    setup.finish(&out, &as_strs(&more));
    let backbone = checkpoint(&out, 12).join("backbone.safetensors");
    let mut bytes = fs::read(&backbone).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&backbone, bytes).unwrap();
    more.push("--resume".to_owned());
    let said = setup.finish(&out, &as_strs(&more));
    assert!(said.contains("step-00000012.ckpt is damaged, trying the one before: "), "{said}");
    assert!(said.contains(", going on after step 9"), "{said}");
    check_same_but_for_the_folder(&setup, &out, &whole);
}

/// Runs a shell script as root of a user namespace with mounts of its own; `None`, with the reason
/// printed, where the system does not let a test mount a file system.
fn with_own_mounts(script: &str, arguments: &[&str]) -> Option<Output> {
    let unshare = |script: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).args(arguments);
        command.output()
    };
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=1m tmpfs \"$1\"";
    match unshare(mount, &[folder.path().to_str().unwrap()]) {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            pfc_testing::skip(&format!("no file system can be mounted here: {said}"));
            return None;
        }
        Err(error) => {
            pfc_testing::skip(&format!("`unshare` cannot be run: {error}"));
            return None;
        }
    }
    Some(unshare(script, arguments).unwrap())
}

#[test]
fn a_full_disk_ends_the_run_before_a_step_writes_and_room_lets_it_go_on() {
    let setup = setup();
    let [whole, out, disk] = ["whole", "run", "disk"].map(|name| setup.out(name));
    fs::create_dir(&disk).unwrap();
    // 1,000 centres a step, most of them new, of 3,104 bytes with all copies: 8 MiB are full in the third.
    let own = [
        "data.synthetic={ identities = 20000, images = 20000 }",
        "head.sample_rate=0.05",
        "model.embedding=128",
        "train.steps=6",
        "train.check_room=false",
        "optim.warmup_epochs=0",
        "checkpoint.every_steps=1",
        "eval.sets=[]",
    ];
    let more = |folder: &Path| [sets(&own), in_files(folder)].concat();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" || exit 9\n\
                  disk=$1; shift\n\
                  \"$@\"; echo \"status $?\" >&2\n\
                  mount -o remount,size=64m \"$disk\" || exit 9\n\
                  \"$@\" --resume";
    let run = setup.arguments(&out, &as_strs(&more(&disk)));
    let arguments = [&[disk.to_str().unwrap(), program()], as_strs(&run).as_slice()].concat();
    let Some(done) = with_own_mounts(script, &arguments) else { return };
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let (first, second) = said.split_once("status 2").expect(&said);
    assert!(first.contains(" centres that are used for the first time need "), "{said}");
    assert!(first.contains("disk: ") && first.contains(" bytes are free"), "{said}");
    assert!(first.contains("hint: make room and resume: the last checkpoint is whole"), "{said}");
    assert!(second.contains(", going on after step 2"), "{said}");
    // As a run on a disk with room from the first step on.
    setup.finish(&whole, &as_strs(&more(&setup.out("of-whole"))));
    check_same(&out, &whole);
}

#[test]
fn centres_of_another_run_are_refused_before_the_folder_of_the_run_is_written() {
    let setup = setup();
    let [first, second, kept] = ["first", "second", "kept"].map(|name| setup.out(name));
    setup.finish(&first, &as_strs(&in_files(&kept)));
    let said = refused(setup.command(&second, &as_strs(&in_files(&kept))));
    assert!(said.contains("holds the centres of a run that has saved, at step 13"), "{said}");
    for name in ["config.toml", "metrics.jsonl", "no-checkpoint-yet", "checkpoints"] {
        assert!(!second.join(name).exists(), "{name}");
    }
    // Without `--resume`: nothing has begun there.
    setup.finish(&second, &as_strs(&in_files(&setup.out("own"))));
}

#[test]
fn a_run_that_no_machine_has_room_for_is_refused_with_the_number_before_it_begins() {
    let setup = setup();
    // 400 million centres of 8 KiB, half of which a step draws.
    let own = [
        "data.synthetic={ identities = 400000000, images = 400000000 }",
        "head.sample_rate=0.5",
        "model.embedding=1024",
        "train.steps=9",
        "optim.warmup_epochs=0",
    ];
    let more = sets(&own);
    let said = refused(setup.command(&setup.out("run"), &as_strs(&more)));
    assert!(said.contains("the run takes ") && said.contains(" GiB for centres"), "{said}");
    assert!(said.contains(" of memory are available"), "{said}");
    assert!(said.contains("--set train.check_room=false"), "{said}");
    assert!(!setup.out("run/config.toml").exists());
    // A processor that is their device has no other memory.
    let on_device = sets(&["head.centres=device", "train.device=cpu"]);
    let device = [&as_strs(&more)[..], &as_strs(&on_device)].concat();
    let said = refused(setup.command(&setup.out("device"), &device));
    assert!(said.contains("the run takes ") && said.contains(" GiB for centres"), "{said}");
    // In files they fit into memory, where a step draws few of them, and into no disk.
    let few = sets(&["head.sample_rate=0.001", "train.steps=100000"]);
    let more = [more, few, in_files(&setup.out("kept"))].concat();
    let said = refused(setup.command(&setup.out("files"), &as_strs(&more)));
    assert!(said.contains("kept: the run needs ") && said.contains(" GiB are free"), "{said}");
}

#[test]
fn a_save_takes_little_memory_beside_the_centres_and_gives_it_back() {
    let bench = |more: &[&str]| -> serde_json::Value {
        let mut command = Command::new(program());
        let own = ["bench", "head", "--json", "-q", "--identities", "60K", "--rows", "3K"];
        command.args(own).args(["--dim", "512", "--batch", "16", "--touch-all"]).args(more);
        let output = command.args(["--checkpoint-every", "5", "--steps", "9"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Every centre is touched after three steps of warm-up; saves come after five and ten.
    for more in [&[][..], &["--weights", "bf16", "--state", "bf16"]] {
        let report = bench(more);
        let [before, peak] =
            ["peak_before_save_mib", "peak_mib"].map(|key| report[key].as_f64().unwrap());
        assert!(before > 100.0 && peak <= 1.1 * before, "{before} MiB, then {peak} MiB: {more:?}");
        // What is copied for a save, a sixteenth of the centres, would show if it stayed.
        let [before, after] =
            ["anonymous_before_save_mib", "anonymous_mib"].map(|key| report[key].as_f64().unwrap());
        assert!(after <= 1.03 * before, "{before} MiB, afterwards {after} MiB: {more:?}");
    }
}

#[test]
fn an_export_of_centres_that_a_signal_stops_says_so_and_leaves_nothing() {
    let name = "an_export_of_centres_that_a_signal_stops_says_so_and_leaves_nothing";
    if pfc_testing::is_again(name) {
        interrupt::listen().unwrap();
        signal(std::process::id(), "TERM");
        while !interrupt::requested() {
            std::thread::yield_now();
        }
        let arguments = std::env::var("PFC_ARGUMENTS").unwrap();
        let error = pfc_train::run(Cli::parse_from(arguments.lines())).unwrap_err();
        assert!(format!("{error:#}").ends_with("interrupted after 0 of 6 centres"), "{error:#}");
        // It decides the exit code of an error.
        assert_eq!(interrupt::signal().map(Signal::exit_code), Some(143));
        return;
    }
    let setup = setup();
    let out = setup.out("run");
    setup
        .finish(&out, &as_strs(&sets(&["train.steps=1", "optim.warmup_epochs=0", "eval.sets=[]"])));
    let exports = setup.out("exports");
    fs::create_dir(&exports).unwrap();
    let model = out.join("last.ckpt").display().to_string();
    for (to, more) in
        [("pth", &["--centres"][..]), ("safetensors", &["--centres"]), ("arcface-torch", &[])]
    {
        let path = exports.join("out").display().to_string();
        let own = ["pfc-train", "export", &model, "--to", to, "--out", &path];
        let arguments = [&own[..], more].concat().join("\n");
        let mut command = pfc_testing::again(name);
        command.env("PFC_ARGUMENTS", arguments);
        finish(command);
        assert_eq!(fs::read_dir(&exports).unwrap().count(), 0, "{to}");
    }
}

#[test]
fn a_folder_of_centres_that_cannot_be_begun_is_refused_before_the_run_s_folder_is_written() {
    let setup = setup();
    let kept = setup.out("kept");
    setup.finish(&setup.out("first"), &as_strs(&in_files(&kept)));
    for ranks in ["1", "2"] {
        let out = setup.out(&format!("second-on-{ranks}"));
        let ranks = ["--nproc-per-node", ranks];
        let more = in_files(&kept);
        let said = refused(setup.command(&out, &[&as_strs(&more)[..], &ranks].concat()));
        assert!(said.contains("holds the centres of a run that has saved"), "{said}");
        let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["run.lock"]);
        // The same with another folder of centres begins.
        let more = in_files(&setup.out(&format!("kept-on-{}", ranks[1])));
        setup.finish(&out, &[&as_strs(&more)[..], &ranks].concat());
    }
    // An empty name is no folder, and is refused by every command that reads a configuration.
    for command in ["run", "check"] {
        let mut refusing = Command::new(program());
        refusing.current_dir(setup.dir.path()).arg(command).arg(&setup.config);
        refusing.args(sets(&["head.centres={ file = \"\" }"]));
        let said = refused(refusing);
        assert!(said.contains("head.centres is { file = \"\" }, but has to be "), "{said}");
    }
}
