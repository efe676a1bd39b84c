//! What the program says and how it exits, for bad input and for questions.

use std::{fs, path::Path};

use assert_cmd::Command;
use pfc_train::{
    config::{self, CentrePlace, Config, Override},
    ranks::Ranks,
    run::{self, Start},
};

fn pfc_train(args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("pfc-train").unwrap();
    let output = command.current_dir(dir).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), without_choices(&text(output.stderr)))
}

/// Without the lines that say which number format the processor chose, and what a step takes on it.
fn without_choices(stderr: &str) -> String {
    let is_choice = |line: &&str| {
        line.contains(".precision is ") && line.contains(", chosen because ")
            || line.starts_with("a step takes about ")
            || line.starts_with("a rank's network takes ")
    };
    stderr.split_inclusive('\n').filter(|line| !is_choice(line)).collect()
}

/// The complaint about `args`, which must come with exit code 2 and nothing on standard output.
#[track_caller]
fn complaint(args: &[&str], dir: &Path) -> String {
    let (code, out, err) = pfc_train(args, dir);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    err
}

fn setup() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    crate::support::write_dataset(&dir.path().join("data"), 3, 2);
    crate::support::write_config(dir.path(), Path::new("data"), None);
    dir
}

#[test]
fn questions_about_the_command_line_are_answered_without_libtorch() {
    let program = assert_cmd::cargo::cargo_bin!("pfc-train");
    pfc_testing::check_front(program, &["check", "run.toml"]);
}

/// Commands that go on until they are stopped, or wait for a pipe that nobody writes to.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_a_signal_stops_ends_with_its_code_and_prints_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let bench = "bench head --identities 2K --rows 100 --dim 8 --batch 4 --steps 1000000000";
    let on_ranks = format!("{bench} --ranks 2");
    for (line, name, code) in
        [(bench, "TERM", 143), (&on_ranks[..], "INT", 130), ("check pipe.toml", "HUP", 129)]
    {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pfc-train"));
        command.current_dir(dir.path()).args(line.split(' '));
        let (out, err) = (std::process::Stdio::piped(), std::process::Stdio::piped());
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        while !pfc_testing::listens(child.id()) {
            assert!(child.try_wait().unwrap().is_none(), "`{line}` has ended");
            std::thread::yield_now();
        }
        pfc_testing::send_signal(child.id(), name);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "`{line}`: {said}");
        assert!(output.stdout.is_empty(), "`{line}`");
    }
}

#[test]
fn every_mistake_in_a_configuration_is_named_with_the_way_out() {
    let dir = setup();
    let file = |text: &str| fs::write(dir.path().join("bad.toml"), text).unwrap();
    file("[data]\npath = \"data\"\n\n[optim]\nmomentun = 0.9\n");
    insta::assert_snapshot!(complaint(&["run", "bad.toml"], dir.path()), @r#"
    error: bad.toml line 5: unknown key `optim.momentun`

    hint: did you mean `optim.momentum`? The keys here are optim.optimizer, optim.lr, optim.lr_batch, optim.momentum, optim.beta1, optim.beta2, optim.eps, optim.weight_decay, optim.decay_all, optim.ema, optim.clip_norm, optim.schedule, optim.warmup_epochs, optim.milestones, optim.gamma, optim.loss_scale, optim.loss_scale_steps, optim.skip_nonfinite
    "#);
    file("[data]\npath = \"data\"\n[model]\nnetwork = \"iresnet50\"\n");
    insta::assert_snapshot!(complaint(&["run", "bad.toml"], dir.path()), @r#"
    error: bad.toml line 4: no network is called `iresnet50`

    hint: did you mean `r50`?
    "#);
    file("[data]\npath = \"data\"\n[head]\nsample_rate = 1.5\n");
    insta::assert_snapshot!(complaint(&["run", "bad.toml"], dir.path()), @r#"
    error: cannot train in `runs/bad`
      cause: head.sample_rate is 1.5, but has to be from 0 to 1

    hint: change it in the file, or for one run with `--set head.sample_rate=VALUE`
    "#);
    insta::assert_snapshot!(complaint(&["run", "absent.toml"], dir.path()), @r#"
    error: absent.toml: cannot read the configuration
      cause: No such file or directory (os error 2)

    hint: `pfc-train recipe` lists configurations to start from
    "#);
    file("");
    insta::assert_snapshot!(complaint(&["check", "bad.toml"], dir.path()), @r#"
    error: `bad.toml` cannot be trained
      cause: data.path is not set, but has to be the path of a folder or file

    hint: change it in the file, or for one run with `--set data.path=VALUE`
    "#);
}

#[test]
fn data_that_does_not_fit_is_refused_before_anything_is_written() {
    let dir = setup();
    let run = |set: &str| complaint(&["run", "tiny.toml", "--out", "r", "--set", set], dir.path());
    insta::assert_snapshot!(run("train.batch_size=7"), @r#"
    error: cannot train in `r`
      cause: data: 6 images do not fill a batch of 7

    hint: lower `train.batch_size` to at most 6
    "#);
    insta::assert_snapshot!(run("data.path=nowhere"), @r#"
    error: cannot train in `r`
      cause: nowhere: no data set here: dataset.json is missing

    hint: give the folder that `pfc-ingest pack` wrote; it writes dataset.json last, so if nowhere comes from an interrupted pack, run that again
    "#);
    insta::assert_snapshot!(run("train.batch_size=0"), @r#"
    error: cannot train in `r`
      cause: train.batch_size is 0, but has to be from 2 to 1048576

    hint: change it in the file, or for one run with `--set train.batch_size=VALUE`
    "#);
    insta::assert_snapshot!(run("optim.lrr=1"), @r#"
    error: --set optim.lrr=1: unknown key `optim.lrr`

    hint: did you mean `optim.lr`? The keys here are optim.optimizer, optim.lr, optim.lr_batch, optim.momentum, optim.beta1, optim.beta2, optim.eps, optim.weight_decay, optim.decay_all, optim.ema, optim.clip_norm, optim.schedule, optim.warmup_epochs, optim.milestones, optim.gamma, optim.loss_scale, optim.loss_scale_steps, optim.skip_nonfinite
    "#);
    insta::assert_snapshot!(
        run("eval.sets=[{name=\"a\", data=\"data\", pairs=\"no.txt\"}]"), @r#"
    error: cannot train in `r`
      cause: no.txt: cannot open
      cause: No such file or directory (os error 2)

    hint: there is no `no.txt`: is the path right?
    "#);
    assert!(!dir.path().join("r").exists());
}

#[test]
fn check_prints_a_configuration_that_the_program_takes_again() {
    let dir = setup();
    let (code, out, err) = pfc_train(&["check", "tiny.toml", "--set", "optim.lr=0.25"], dir.path());
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(
        err,
        "6 images of 3 identities; 3 epochs of 1 step of 4 images\n\
         3 of 3 centres are going to be used; they take 1 KiB of memory, a save 2 KiB more, and 1 KiB \
         in a checkpoint\n"
    );
    assert!(out.contains("\nlr = 0.25\n"), "{out}");
    fs::write(dir.path().join("again.toml"), &out).unwrap();
    let (code, again, _) = pfc_train(&["check", "again.toml"], dir.path());
    assert_eq!((code, again), (Some(0), out));
}

/// Whatever `run` refuses before its first step, `check` does, with the same cause.
#[test]
fn check_refuses_what_run_would_with_the_same_cause() {
    let dir = setup();
    let first = ["run", "tiny.toml", "--out", "a", "--set", "train.epochs=1", "-q"];
    assert_eq!(pfc_train(&first, dir.path()).0, Some(0));
    let refused = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let of = |args: &[&str]| {
            let said = complaint(&[args, &sets].concat(), dir.path());
            said.split_once("cause: ").map(|(_, cause)| cause.to_owned()).unwrap()
        };
        let (run, check) = (of(&["run", "tiny.toml", "--out", "b"]), of(&["check", "tiny.toml"]));
        assert_eq!(run, check, "{sets:?}");
        check
    };
    let said = refused(&["eval.sets=[{name=\"a\", data=\"nope\", pairs=\"nope.txt\"}]"]);
    assert!(said.starts_with("nope.txt: cannot open"), "{said}");
    let said = refused(&["init.model=nope.ckpt"]);
    assert!(said.contains("a file or folder that exists"), "{said}");
    let said = refused(&["init.model=a/last.ckpt", "init.data=nope"]);
    assert!(said.starts_with("nope: no data set here"), "{said}");
    refused(&["init.model=a/last.ckpt", "model.network=mbf"]);
    refused(&["init.model=a/last.ckpt", "init.data=data", "model.embedding=16"]);
    let said = refused(&["train.accumulate=4"]);
    assert!(said.contains("4"), "{said}");

    let said = complaint(&["check", "tiny.toml", "--out", "a"], dir.path());
    assert!(said.contains("a: "), "{said}");
    let said = complaint(&["check", "tiny.toml", "--nproc-per-node", "3"], dir.path());
    assert!(said.contains("3 ranks"), "{said}");
    let good = ["check", "tiny.toml", "--set", "init.model=a/last.ckpt", "--set", "init.data=data"];
    assert_eq!(pfc_train(&good, dir.path()).0, Some(0));
    assert!(!dir.path().join("runs").exists(), "check has written");
}

#[test]
fn check_says_what_a_step_takes_here() {
    let dir = setup();
    let mut command = Command::cargo_bin("pfc-train").unwrap();
    let output = command.current_dir(dir.path()).args(["check", "tiny.toml"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = said.lines().find(|line| line.starts_with("a step takes about ")).unwrap();
    assert!(line.contains("for the network and") && line.contains("all 3 steps"), "{line}");
    let line = said.lines().find(|line| line.starts_with("a rank's network takes ")).unwrap();
    assert!(line.contains("activations about"), "{line}");
}

#[test]
fn a_recipe_is_printed_as_it_is_or_with_every_key_explained() {
    let dir = tempfile::tempdir().unwrap();
    let (code, list, _) = pfc_train(&["recipe"], dir.path());
    assert_eq!(code, Some(0));
    assert!(list.contains("glint360k-r50-pfc01") && list.contains("ArcFace 0.5"), "{list}");
    let (_, text, _) = pfc_train(&["recipe", "glint360k-r50"], dir.path());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/configs/glint360k-r50.toml");
    assert_eq!(text, fs::read_to_string(file).unwrap());
    let (_, commented, _) = pfc_train(&["recipe", "glint360k-r50", "--commented"], dir.path());
    let parse = |text: &str| config::parse(text, "x", &[]).unwrap();
    assert_eq!(parse(&commented), parse(&text));
    assert!(commented.contains("# Learning rate at the end of warm-up"), "{commented}");
    let said = complaint(&["recipe", "glint360k-r5"], dir.path());
    assert!(said.contains("glint360k-r50"), "{said}");
}

#[test]
fn a_run_prints_its_result_as_a_table_or_as_json() {
    let dir = setup();
    let args = ["run", "tiny.toml", "--out", "r", "--set", "train.epochs=1", "--json", "-q"];
    let (code, out, err) = pfc_train(&args, dir.path());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["finished"], true);
    assert_eq!(json["checkpoint"], "r/last.ckpt");
    assert!(json["rows"][0]["mean_loss"].as_f64().unwrap() > 0.0);
    let (_, out, _) = pfc_train(&["run", "tiny.toml", "--out", "r", "--resume"], dir.path());
    assert!(out.contains("mean loss"), "{out}");
}

#[test]
fn help_and_completions_go_to_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["run", "--help"], &["completions", "bash"]] {
        let (code, out, _) = pfc_train(args, dir.path());
        assert_eq!(code, Some(0));
        assert!(out.contains("pfc-train"), "{out}");
    }
    assert_eq!(pfc_train(&["run"], dir.path()).0, Some(2));
    assert_eq!(pfc_train(&["run", "a.toml", "--set", "lr=1"], dir.path()).0, Some(2));
}

fn json(args: &[&str], dir: &Path) -> serde_json::Value {
    let (code, out, err) = pfc_train(args, dir);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_plan_says_what_fits_and_ends_with_1_if_nothing_does() {
    let dir = tempfile::tempdir().unwrap();
    let large = ["plan", "--identities", "1B", "--gpus", "1000", "--gpu-memory", "80"];
    let plan = json(&[&large[..], &["--rate", "0.01", "--json"]].concat(), dir.path());
    assert_eq!(plan["estimates"].as_array().unwrap().len(), 8);
    assert!(plan["cheapest"]["gpus_min"].as_u64().unwrap() < 1000);
    let (code, out, _) =
        pfc_train(&["plan", "--identities", "1M", "--gpu-memory", "4"], dir.path());
    assert_eq!(code, Some(1));
    assert!(out.ends_with("nothing fits: a lower `--rate` or larger cards may\n"), "{out}");
    let (_, out, _) = pfc_train(&["plan", "--check"], dir.path());
    assert!(out.contains("29M") && out.contains("PLSC"), "{out}");
    let said = complaint(&["plan", "--identities", "ten"], dir.path());
    assert!(said.contains("not a whole number of 1 or more"), "{said}");
}

#[test]
fn a_roof_that_two_ranks_measure_is_what_a_plan_predicts_by() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = ["--size", "1", "--rows", "8", "--repeats", "1"];
    let measure = [&["bench", "roof", "--nproc-per-node", "2", "--json"], &sizes[..]].concat();
    let roof = json(&measure, dir.path());
    for rate in ["product_tflops", "conv_tflops", "memory_gbs", "wire_gbs"] {
        assert!(roof[rate].as_f64().unwrap() > 0.0, "{rate}");
    }
    assert!(roof["host_gbs"].is_null(), "a processor is its own host");
    fs::write(dir.path().join("roof.json"), roof.to_string()).unwrap();
    let plan = ["plan", "--identities", "1M", "--gpus", "8", "--roof", "roof.json"];
    let predicted = json(&[&plan[..], &["--json"]].concat(), dir.path());
    assert_eq!(predicted["rates"]["wire_gbs"], roof["wire_gbs"]);
    assert_eq!(predicted["steps"].as_array().unwrap().len(), 2);
    let (code, out, err) = pfc_train(&plan, dir.path());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("ms on 8 GPUs") && out.contains("at the rates of the roof"), "{out}");
}

#[test]
fn a_benchmark_of_centres_in_a_file_goes_on_after_its_last_save() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |folder: &str, steps: &str, more: &[&str]| {
        let args = ["bench", "head", "--json", "--identities", "2K", "--rate", "0.1"];
        let sizes = ["--dim", "16", "--batch", "8", "--warm-up", "0", "--weights", "bf16"];
        let saves = ["--file", folder, "--checkpoint-every", "4", "--steps", steps];
        json(&[&args[..], &sizes, &saves, more].concat(), dir.path())
    };
    let losses = |report: &serde_json::Value| report["losses"].as_array().unwrap().clone();
    let whole = losses(&bench("whole", "12", &[]));
    // Steps 5 and 6 move rows of a state that nothing vouches for.
    bench("stopped", "6", &[]);
    let resumed = bench("stopped", "12", &["--resume"]);
    assert_eq!(resumed["first_step"], 4);
    assert_eq!(losses(&resumed), whole[4..]);
}

#[test]
fn a_benchmark_of_ranks_takes_the_same_steps_as_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let losses = |ranks: &str| {
        let args = ["bench", "head", "--json", "--identities", "2K", "--rows", "300"];
        let sizes = ["--dim", "16", "--batch", "8", "--ranks", ranks];
        let report = json(&[&args[..], &sizes].concat(), dir.path());
        let losses = report["losses"].as_array().unwrap().iter();
        losses.map(|loss| loss.as_f64().unwrap()).collect::<Vec<_>>()
    };
    for (one, three) in losses("1").iter().zip(losses("3")) {
        assert!((one - three).abs() <= 1e-5 * one, "{three} for {one}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_benchmark_in_a_format_that_is_emulated_says_what_that_costs() {
    let mut command = Command::cargo_bin("pfc-train").unwrap();
    let args = ["bench", "head", "--identities", "2K", "--rows", "20", "--precision", "bf16"];
    command.args(args).args(["--dim", "16", "--batch", "8", "--steps", "1", "--warm-up", "0"]);
    let output = command.env("ONEDNN_MAX_CPU_ISA", "AVX2").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.starts_with("warning: bf16 is emulated here (ONEDNN_MAX_CPU_ISA=AVX2 forbids"),
        "{said}"
    );
    assert!(said.ends_with(" times as long as in f32\n"), "{said}");
}

#[test]
fn a_benchmark_on_a_device_takes_the_steps_of_one_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |more: &[&str]| {
        let args = ["bench", "head", "--json", "--identities", "2K", "--rows", "300"];
        json(&[&args[..], &["--dim", "16", "--batch", "8"], more].concat(), dir.path())
    };
    let losses = |report: &serde_json::Value| -> Vec<f64> {
        report["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
    };
    let (host, device) = (bench(&[]), bench(&["--device", "cpu"]));
    assert_eq!(
        (&host["config"]["centres"], &device["config"]["centres"]),
        (&"host".into(), &"device".into())
    );
    for (host, device) in losses(&host).iter().zip(losses(&device)) {
        assert!((host - device).abs() <= 1e-5 * host, "{device} for {host}");
    }
    let said = complaint(&["bench", "head", "--device", "gpu"], dir.path());
    assert!(said.contains("not cpu, cuda or cuda:N"), "{said}");
}

#[test]
fn a_batch_that_memory_does_not_hold_is_an_error_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[data]\nsynthetic = { identities = 2, images = 8192 }\n\n\
                  [model]\nnetwork = \"mbf\"\nprecision = \"f32\"\n\n\
                  [train]\nbatch_size = 8192\nsteps = 1\nthreads = 1\n";
    fs::write(dir.path().join("large.toml"), config).unwrap();
    // The program and its libraries map about one gigabyte; the first layer's result takes 6.6 GB.
    let limited = "ulimit -v 5000000; exec \"$@\"";
    let program = assert_cmd::cargo::cargo_bin!("pfc-train");
    let output = std::process::Command::new("sh")
        .current_dir(dir.path())
        .args(["-c", limited, "sh"])
        .arg(program)
        .args(["run", "large.toml", "--out", "run"])
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("no memory") && !err.contains("panicked"), "{err}");
    assert!(err.contains("train.batch_size"), "{err}");
}

/// What a value may be mistaken for.
const STRANGE: [&str; 16] = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "-0.0",
    "0.5",
    "1e30",
    "1e300",
    "1e-320",
    "9223372036854775807",
    "\"x\"",
    "\"\"",
    "true",
    "[]",
    "{}",
];

/// Every key of a configuration, with those that have no default and those of each loss and optimizer,
/// which are set beside.
fn keys(config: &Config) -> Vec<(String, Vec<&'static str>)> {
    fn walk(prefix: &str, table: &toml::Table, found: &mut Vec<(String, Vec<&'static str>)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let toml::Value::Table(table) = value {
                walk(&key, table, found);
            }
            if !prefix.is_empty() {
                found.push((key, Vec::new()));
            }
        }
    }
    let mut found = Vec::new();
    walk("", &config.to_toml().parse().unwrap(), &mut found);
    let mut add = |keys: &[&str], beside: &[&'static str]| {
        found.extend(keys.iter().map(|key| ((*key).to_owned(), beside.to_vec())));
    };
    add(&["head.weight_decay", "data.as_packed", "data.synthetic", "head.centres.file"], &[]);
    let synthetic = ["data.synthetic={identities=3, images=9}"];
    add(&["data.synthetic.identities", "data.synthetic.images"], &synthetic);
    add(&["optim.milestones"], &["optim.schedule=step"]);
    for (loss, keys) in [
        ("head.margin={loss=\"arcface\", m=0.5}", &["m", "gradient"][..]),
        ("head.margin={loss=\"combined\", m1=1.0, m2=0.3, m3=0.2}", &["m1", "m2", "m3"]),
        ("head.margin={loss=\"adaface\", m=0.4}", &["m", "h", "alpha"]),
        ("head.margin={loss=\"curricularface\", m=0.5}", &["m", "alpha"]),
        ("head.margin={loss=\"magface\"}", &["l_margin", "u_margin", "l_a", "u_a", "lambda_g"]),
        ("head.margin={loss=\"uniface\", m=0.4}", &["m", "lambda"]),
        ("head.margin={loss=\"subcentre_arcface\", m=0.5}", &["m", "k"]),
    ] {
        keys.iter().for_each(|key| add(&[&format!("head.margin.{key}")], &[loss]));
    }
    for (optimizer, keys) in [
        ("head.optimizer={name=\"adamw\"}", &["beta1", "beta2", "eps"][..]),
        ("head.optimizer={name=\"row_adagrad\"}", &["eps"]),
    ] {
        for key in keys {
            add(&[&format!("head.optimizer.{key}")], &["head.update=sparse", optimizer]);
        }
    }
    let adamw = ["optim.optimizer=adamw"];
    add(&["optim.beta1", "optim.beta2", "optim.eps", "optim.lr", "optim.weight_decay"], &adamw);
    found
}

/// What comes of a value: the refusal, or what `check` and the first steps of a run made of it.
fn outcome(dir: &Path, key: &str, value: &str, beside: &[&str]) -> Result<bool, String> {
    let sets = beside.iter().map(|set| (*set).to_owned());
    let sets = sets.chain([format!("{key}={value}")]).map(|set| set.parse::<Override>().unwrap());
    let sets: Vec<Override> = sets.collect();
    let text = fs::read_to_string(dir.join("tiny.toml")).unwrap();
    let mut config = config::parse(&text, "tiny.toml", &sets).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    assert!(config.train.timeout().as_secs_f64() > 0.0);
    // So that the run folder's copy is the same configuration.
    assert_eq!(config::parse(&config.to_toml(), "copy", &[]).unwrap(), config, "{key}={value}");
    config.train.threads = 1;
    if key != "train.steps" {
        config.train.steps = 2;
    }
    if config.train.steps > 2 {
        return Ok(true);
    }
    let folder = tempfile::tempdir_in(dir).unwrap();
    if let CentrePlace::File(path) = &mut config.head.centres {
        *path = folder.path().join(&*path);
    }
    let out = folder.path().join("run");
    // It may well fail, as a learning rate of 1e30 does.
    Ok(run::train(&config, &out, Start::Fresh, &Ranks::solo(), true).is_ok())
}

#[test]
fn whatever_a_key_is_set_to_the_program_refuses_it_by_name_or_takes_it() {
    let dir = setup();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = fs::read_to_string(dir.path().join("tiny.toml")).unwrap();
    let text = text.replace("path = \"data\"", &format!("path = \"{}\"", path("data")));
    // The smallest: hundreds of values are taken, and each is trained with.
    let text = text.replace("batch_size = 4", "batch_size = 2");
    // Two steps of it are no epoch.
    let text = text.replace("warmup_epochs = 1", "warmup_epochs = 0");
    fs::write(dir.path().join("tiny.toml"), &text).unwrap();
    let config = config::parse(&text, "tiny.toml", &[]).unwrap();
    let keys = keys(&config);
    assert!(keys.len() > 90, "{}", keys.len());
    let (mut n_refused, mut n_taken, mut n_trained) = (0, 0, 0);
    let zeros = "0".repeat(20);
    for (key, beside) in &keys {
        for value in STRANGE {
            let place = format!("{key}={value} beside {beside:?}");
            let found = std::panic::catch_unwind(|| outcome(dir.path(), key, value, beside));
            match found.unwrap_or_else(|_| panic!("{place}")) {
                Ok(has_trained) => {
                    n_taken += 1;
                    n_trained += usize::from(has_trained);
                }
                Err(said) => {
                    n_refused += 1;
                    let section = key.split('.').take(2).collect::<Vec<_>>().join(".");
                    assert!(said.contains(&section), "{place}: {said}");
                    for ours in ["struct ", "enum ", "variant, ", "newtype", "e-308", &zeros] {
                        let foreign = said.replace(value, "");
                        assert!(!foreign.contains(ours), "{place}: {said}");
                    }
                }
            }
        }
    }
    assert!(n_refused > 800 && n_taken > 100, "{n_refused} refused, {n_taken} taken");
    // Some that are taken make a run fail, as a learning rate of 1e30 does; most do not.
    assert!(2 * n_trained > n_taken, "{n_trained} of {n_taken} trained");
}

#[test]
fn a_timeout_that_is_none_is_refused_by_every_command() {
    let dir = setup();
    for value in ["nan", "inf", "-1", "0", "1e30"] {
        let set = format!("train.timeout_s={value}");
        for more in [&[][..], &["--nproc-per-node", "2"]] {
            let args = [&["run", "tiny.toml", "--out", "r", "--set", &set], more].concat();
            let said = complaint(&args, dir.path());
            assert!(said.contains("train.timeout_s is "), "{said}");
            assert!(said.contains("but has to be above 0 and at most 1000000"), "{said}");
        }
        let said = complaint(&["check", "tiny.toml", "--set", &set], dir.path());
        assert!(said.contains("train.timeout_s is "), "{said}");
    }
    assert!(!dir.path().join("r").exists());
}

#[test]
fn a_run_within_its_first_epoch_prints_where_it_ended() {
    let dir = setup();
    let more = ["--set", "train.steps=3", "--set", "train.batch_size=2"];
    let more = [&more[..], &["--set", "train.steps=2", "--set", "optim.warmup_epochs=0"]].concat();
    let args = [&["run", "tiny.toml", "--out", "r", "-q", "--json"], &more[..]].concat();
    let result = json(&args, dir.path());
    assert_eq!(
        (&result["rows"][0]["step"], result["rows"].as_array().unwrap().len()),
        (&2.into(), 1)
    );
    assert!(result["rows"][0]["mean_loss"].as_f64().unwrap() > 0.0, "{result}");
}
