//! The examples of every help text, as they stand there.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use clap::{Command, CommandFactory};

use support::{
    benchmarks::{IJB, MEGAFACE},
    commands, parse,
    shell::{programs, run},
};

/// A line longer than this is wrapped within its text, and an example cannot be pasted then.
const WIDTH: usize = 100;

/// Lines of the examples of `command` and of all below it, with the command they are of.
fn examples(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    // A paragraph on one line is wrapped as a whole; of one on several lines, words would be left over. Lines that are
    // indented, as commands are, are no part of one.
    for (line, next) in help.lines().zip(help.lines().skip(1)) {
        let goes_on = !next.is_empty() && !next.starts_with(' ');
        let is_torn = line.chars().count() > WIDTH && goes_on;
        assert!(!is_torn, "`{name} --help` wraps `{line}` before `{next}`");
    }
    let lines = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let mut line = String::new();
    for part in lines.take_while(|line| !line.is_empty()) {
        assert!(part.chars().count() <= WIDTH, "`{name} --help` wraps `{part}`");
        line += part.trim();
        if let Some(begun) = line.strip_suffix('\\') {
            line.truncate(begun.len());
            continue;
        }
        found.push((name.to_owned(), std::mem::take(&mut line)));
    }
    assert!(line.is_empty(), "an example of `{name} --help` ends within a line");
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        examples(below, &format!("{name} {}", below.get_name()), found);
    }
}

#[test]
fn every_example_is_a_line_that_the_program_takes() {
    let mut found = Vec::new();
    examples(&pfc_ingest::Cli::command(), "pfc-ingest", &mut found);
    examples(&pfc_train::Cli::command(), "pfc-train", &mut found);
    examples(&pfc_eval::Cli::command(), "pfc-eval", &mut found);
    assert!(found.len() > 80, "{} examples", found.len());
    let mut n_ours = 0;
    for (of, line) in found {
        for words in commands(&line) {
            n_ours += 1;
            if let Err(error) = parse(&words) {
                panic!("an example of `{of} --help`, `{line}`: {error}");
            }
        }
    }
    assert!(n_ours > 80, "{n_ours} commands");
}

/// Parts of lines, and what is said or done where a line has one; the first one counts.
type ByPart<'a> = &'a [(&'a str, &'a str)];

/// What is done with the examples of a program.
struct Examples<'a> {
    of: Command,
    /// A folder with what they name, of which each gets a copy.
    made: &'a Path,
    /// What is not here; examples that want it are parsed alone, and the book runs lines like most.
    not_run: ByPart<'a>,
    /// What is made, or made room for, before an example.
    prepared: ByPart<'a>,
    /// The figure that a change of the help is measured by.
    n_run_min: usize,
}

impl Examples<'_> {
    /// Runs each as it is printed, one that several commands show once.
    fn check(&self) {
        let Some(programs) = programs() else { return };
        let mut found = Vec::new();
        examples(&self.of, self.of.get_name(), &mut found);
        let (mut run_before, mut n_run) = (Vec::new(), 0);
        for (of, line) in &found {
            if run_before.contains(&line) {
                continue;
            }
            run_before.push(line);
            if let Some(lacks) = of_part(self.not_run, line) {
                println!("`{line}` is not run for want of {lacks}");
                continue;
            }
            let prepared = of_part(self.prepared, line).unwrap_or_default();
            let folder = tempfile::tempdir().unwrap();
            let script = format!("cp -a {}/. .\n{prepared}\n{line}", self.made.display());
            run(&script, folder.path(), &programs, &format!("an example of `{of} --help`"));
            n_run += 1;
        }
        assert!(n_run >= self.n_run_min, "{n_run} of {} examples are run", found.len());
    }
}

fn of_part<'a>(by_part: ByPart<'a>, line: &str) -> Option<&'a str> {
    by_part.iter().find(|(part, _)| line.contains(part)).map(|(_, value)| *value)
}

/// Small data under the names that the examples of pfc-ingest use.
const DATA: &str = "
pfc-ingest -q synth made --identities 16 --images-per-identity 10 --holdout 8 --pairs 60 --seed 1 \\
    --noise duplicated=0.05
mv made/train faces && mv made/test lfw && mv made/pairs.txt pairs.txt && rm -r made
cp -r lfw photos
(cd lfw && find * -name '*.jpg' | sort) > names
sed 's|$| 38 51 73 51 56 71 41 92 70 92|' names > landmarks.txt
echo path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5 > photos.csv
awk -F/ '{print \"photos/\" $0 \",\" $1 \",38,51,73,51,56,71,41,92,70,92\"}' names >> photos.csv
pfc-ingest -q pack faces data
pfc-ingest -q export data glint360k --to recordio
pfc-ingest -q pack lfw lfw.pfc
pfc-ingest -q export lfw.pfc lfw.bin --to bin --pairs-file pairs.txt
pfc-ingest -q export data hub/my-faces --to parquet
python3 -c \"import shutil; shutil.make_archive('lfw', 'zip', 'lfw')\"
";

#[test]
fn the_examples_of_pfc_ingest_run_as_printed() {
    let Some(programs) = programs() else { return };
    let made = tempfile::tempdir().unwrap();
    run(DATA, made.path(), &programs, "the data of the examples");
    let of = pfc_ingest::Cli::command();
    let not_run = &[
        (".onnx", "a network"),
        ("--embeddings", "embeddings"),
        ("pfc-ingest synth", "time to draw thousands of faces"),
        ("pfc-ingest bench", "time to measure"),
        ("completions", "a home to write to"),
        ("/mnt/", "a disk"),
        ("/scratch/", "disks of other machines"),
        ("{0000..0127}", "128 archives"),
        ("celeba", "CelebA"),
        ("casia", "CASIA-WebFace"),
        ("Aaron_Eckhart", "LFW"),
        ("--label 17", "more people"),
        ("1000..1100", "more images"),
        ("--pairs 6000", "more images"),
        ("yaw", "landmarks"),
        ("| jq", "jq"),
    ];
    let prepared = &[
        ("pfc-ingest pack", "rm -r data"),
        (
            "merge data part0",
            "rm -r data; for i in 0 1 2; do pfc-ingest -q pack faces part$i --worker $i/3; done",
        ),
        (
            "merge data",
            "rm -r data; for i in 0 1; do pfc-ingest -q pack faces data --worker $i/2; done",
        ),
        ("merge both", "mv data batch1; mv lfw.pfc batch2"),
        (
            "decisions",
            "for p in exact near few; do pfc-ingest -q clean data --pass $p --min-images 2; done",
        ),
        ("review import", "pfc-ingest -q review export data review"),
        ("--lowest", "pfc-ingest -q quality data"),
        ("export data faces", "rm -r faces"),
        ("export data lfw.bin", "rm -r data lfw.bin; mv lfw.pfc data"),
        ("people.txt", "ls faces | head -n 3 > people.txt"),
    ];
    Examples { of, made: made.path(), not_run, prepared, n_run_min: 41 }.check();
}

/// Small data under the names that the examples of pfc-train and pfc-eval use, and a model of two steps under those of
/// their models.
const DATA_OF_MODELS: &str = r#"
pfc-ingest -q synth made --identities 16 --images-per-identity 4 --holdout 8 --pairs 60 --seed 1
pfc-ingest -q pack made/train data
pfc-ingest -q export data rec --to recordio && mv rec/* .
mkdir my work work/demo work/demo/faces faces_emore glint360k_r50 calfw cplfw
cp -r data my/shards && cp -r data work/demo/train && cp -r data glint360k.pfc
cp -r made/test work/demo/faces && cp made/pairs.txt work/demo/faces
mv made/test lfw && mv made/pairs.txt . && rm -r made
cp -r lfw faces && cp -r lfw agedb && cp -r lfw photos
mkdir calfw/aligned && cp lfw/*/*.jpg calfw/aligned && cp -r calfw/aligned cplfw
pfc-ingest -q pack lfw packed && pfc-ingest -q quality packed
pfc-ingest -q export packed lfw.bin --to bin --pairs-file pairs.txt
for name in cfp_fp cfp_ff agedb_30 calfw cplfw faces_emore/lfw faces_emore/cfp_fp; do cp lfw.bin $name.bin; done
awk 'NF > 2 { second = NF > 3 ? $3 : $1
    printf "%s/%s_%04d.jpg %s/%s_%04d.jpg %d\n", $1, $1, $2, second, second, $NF, NF == 3 }' pairs.txt > agedb_30_pair.txt
awk '{ for (i = 1; i < 3; i++) { sub(".*/", "", $i); print $i, $3 } }' agedb_30_pair.txt > calfw/pairs_CALFW.txt
cp calfw/pairs_CALFW.txt cplfw/pairs_CPLFW.txt
(cd photos && ls */*.jpg) > names
sed 's|$| 38 51 73 51 56 71 41 92 70 92|' names > landmarks.txt
awk -F/ '{ print $0, $1 }' names > list.txt
cp photos/$(head -n 1 names) a.jpg && cp a.jpg b.jpg
pfc-train recipe demo > demo.toml && cp demo.toml run.toml
pfc-train -q run demo.toml --set train.epochs=1 --set 'eval.sets=[]' --out runs/a
cp -r runs/a runs/b
for name in run a b r100; do cp -rL runs/a/last.ckpt $name.ckpt; done
pfc-train -q export run.ckpt --to pth --out glint360k_r50/backbone.pth
cp glint360k_r50/backbone.pth model.pt
pfc-eval -q embed packed e.npy --model run.ckpt --labels labels.txt
pfc-eval -q embed packed e.safetensors --model run.ckpt
pfc-eval -q embed packed embeddings.safetensors --model run.ckpt --mirror keep
for name in a b; do pfc-eval -q lfw --model $name.ckpt --data lfw --pairs pairs.txt --json > $name.json; done
"#;

/// The folder with it, made once.
fn data_of_models(programs: &Path) -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        // Nothing drops what is static: the next run takes away what this one leaves.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let script = format!("{DATA_OF_MODELS}{IJB}");
        run(&script, &folder, programs, "the data of the examples");
        folder
    })
}

#[test]
fn the_examples_of_pfc_train_run_as_printed() {
    let Some(programs) = programs() else { return };
    let not_run = &[
        ("--to onnx", "onnxruntime"),
        ("pfc-train watch", "a terminal"),
        ("bench head", "time to measure"),
        ("cuda", "a GPU"),
        ("roof.json", "a GPU's rates"),
        ("completions", "a home to write to"),
        ("network=r18", "time to train a larger network"),
        ("tensorboard", "TensorBoard"),
    ];
    let prepared =
        &[("--resume", ""), ("--out runs/a", "rm -r runs"), ("--out model.pt", "rm model.pt")];
    let made = data_of_models(&programs);
    let of = pfc_train::Cli::command();
    Examples { of, made, not_run, prepared, n_run_min: 24 }.check();
}

#[test]
fn the_examples_of_pfc_eval_run_as_printed() {
    let Some(programs) = programs() else { return };
    let not_run =
        &[(".onnx", "a network"), ("completions", "a home to write to"), ("cfp-dataset", "CFP")];
    let scored = format!(
        "{MEGAFACE}
for set in facescrub megaface; do
    pfc-eval -q megaface embed --model r100.ckpt --images ${{set}}_images --list data/${{set}}_lst \
        --out out/$set --suffix _r100.bin
done"
    );
    let of_ijbc = "pfc-eval -q ijbc --data IJBC --model a.ckpt --json > a-ijbc.json";
    let prepared = &[
        ("--labels labels.txt &&", "rm labels.txt"),
        ("megaface score --probes", &scored[..]),
        ("megaface embed", MEGAFACE),
        ("report a.json b.json a-ijbc.json", of_ijbc),
    ];
    let made = data_of_models(&programs);
    let of = pfc_eval::Cli::command();
    Examples { of, made, not_run, prepared, n_run_min: 34 }.check();
}

#[test]
fn every_program_says_what_its_exit_codes_mean() {
    for program in [pfc_ingest::Cli::command(), pfc_train::Cli::command(), pfc_eval::Cli::command()]
    {
        let help = program.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("\nExit codes: 0 "), "{}", program.get_name());
        for code in ["1 ", "2 ", "130", "143", "129"] {
            assert!(help.contains(code), "{} says nothing of {code}", program.get_name());
        }
    }
}

#[test]
fn every_command_shows_examples() {
    fn check(command: &Command, name: &str, is_shown: bool, without: &mut Vec<String>) {
        let help = command.get_after_long_help().or_else(|| command.get_after_help());
        let is_shown = is_shown || help.is_some_and(|help| help.to_string().contains("Example"));
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let mut n_below = 0;
        for below in below {
            n_below += 1;
            check(below, &format!("{name} {}", below.get_name()), is_shown, without);
        }
        if n_below == 0 && !is_shown {
            without.push(name.to_owned());
        }
    }
    let mut without = Vec::new();
    for program in [pfc_ingest::Cli::command(), pfc_train::Cli::command(), pfc_eval::Cli::command()]
    {
        // The examples of a program's own help are of a few of its commands.
        let commands = program.get_subcommands().filter(|command| command.get_name() != "help");
        for command in commands {
            let name = format!("{} {}", program.get_name(), command.get_name());
            check(command, &name, false, &mut without);
        }
    }
    assert!(without.is_empty(), "{}", without.join(", "));
}
