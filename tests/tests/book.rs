//! The README and the book: what they link to is there, and what they print as commands runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use support::{
    commands,
    pages::{Block, anchors, blocks, links, pages, root, text},
    parse,
};

#[test]
fn the_summary_names_every_page_of_the_book() {
    let summary = links("docs/SUMMARY.md");
    let named: Vec<&str> = summary.iter().map(|(path, _)| &path[..]).collect();
    for page in pages() {
        let Some(name) = page.strip_prefix("docs/").filter(|name| *name != "SUMMARY.md") else {
            continue;
        };
        assert!(named.contains(&name), "docs/SUMMARY.md does not name {name}");
    }
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let mut lost = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap().to_owned();
        for (path, anchor) in links(&page) {
            let target = match &path[..] {
                "" => page.clone(),
                path => folder.join(path).to_str().unwrap().to_owned(),
            };
            let is_there = root().join(&target).exists();
            let is_page = target.ends_with(".md");
            let has_anchor =
                anchor.is_empty() || is_page && is_there && anchors(&target).contains(&anchor);
            if !is_there || !has_anchor {
                lost.push(format!("{page}: {path}#{anchor}"));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn every_command_of_the_pages_is_one_that_the_program_takes() {
    let mut n_commands = 0;
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.is_shell()) {
            for words in block.lines().iter().flat_map(|line| commands(line)) {
                n_commands += 1;
                if let Err(error) = parse(&words) {
                    panic!("{page}:{}: `{}`: {error}", block.line, words.join(" "));
                }
            }
        }
    }
    assert!(n_commands > 40, "{n_commands} commands");
}

#[test]
fn a_block_that_no_test_runs_says_why() {
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.is_shell() && block.is_ignored()) {
            let place = format!("{page}:{}", block.line);
            assert!(block.above.starts_with("<!-- not run: "), "{place} does not say why");
        }
    }
}

/// The folder of the programs that cargo has built beside this test; says so if one is missing.
fn programs() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
    for program in ["pfc-ingest", "pfc-train", "pfc-train-torch", "pfc-eval", "pfc-eval-torch"] {
        if !folder.join(program).exists() {
            pfc_testing::skip(&format!(
                "{program} is not built beside the test: build the workspace"
            ));
            return None;
        }
    }
    Some(folder)
}

/// Runs lines of a shell in `folder`, and stops at the first that fails.
fn run(script: &str, folder: &Path, programs: &Path, place: &str) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        // Pages run at the same time, and threads that wait for others would keep the processors busy.
        .env("OMP_WAIT_POLICY", "passive")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {script}\n{said}");
}

/// What the pages' commands are run on: small data under the names that they use.
const DATA: &str = "
pfc-ingest -q synth made --identities 16 --images-per-identity 10 --holdout 8 --pairs 60 --seed 1
pfc-ingest -q pack made/train made.pfc
pfc-ingest -q export made.pfc glint360k --to recordio
cp -r glint360k ms1mv3
mkdir -p photographs && cp -r made/train/. photographs/
mv made/test lfw && mv made/pairs.txt pairs.txt
pfc-ingest -q pack lfw lfw.pfc
pfc-ingest -q export lfw.pfc lfw.bin --to bin --pairs-file pairs.txt
cat > made.toml <<END
data.path = 'made.pfc'
model = { network = 'r10_w8', embedding = 128 }
head.margin = { loss = 'cosface', m = 0.2 }
train = { batch_size = 32, epochs = 1 }
END
pfc-train -q run made.toml --out runs/base
cp -rL runs/base/last.ckpt run.ckpt
cp -r run.ckpt a.ckpt && cp -r run.ckpt b.ckpt
pfc-train -q export run.ckpt --to pth --out glint360k_r50.pth
rm -r made made.toml lfw.pfc
first=$(ls lfw | head -n 1)
cp lfw/$first/$(ls lfw/$first | head -n 1) a.jpg
cp lfw/$first/$(ls lfw/$first | tail -n 1) b.jpg
";

/// A folder with the data, a copy for every page.
fn data(programs: &Path) -> tempfile::TempDir {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        run(DATA, folder.path(), programs, "the data of the pages");
        folder
    });
    let copy = tempfile::tempdir().unwrap();
    run(&format!("cp -a {}/. .", made.path().display()), copy.path(), programs, "a copy");
    copy
}

/// Runs the blocks of a page as they are printed, in order, in one folder.
fn check(page: &str) {
    let Some(programs) = programs() else { return };
    let folder = data(&programs);
    let blocks = blocks(page);
    for block in blocks.iter().filter(|block| block.is_shell() && !block.is_ignored()) {
        run(&block.text, folder.path(), &programs, &format!("{page}:{}", block.line));
    }
}

#[test]
fn every_page_whose_commands_can_run_is_run_here() {
    let source = fs::read_to_string(root().join("tests/tests/book.rs")).unwrap();
    for page in pages() {
        let is_ours = |block: &Block| block.lines().iter().any(|line| !commands(line).is_empty());
        let can_run = |block: &Block| block.is_shell() && !block.is_ignored() && is_ours(block);
        let is_run = source.contains(&format!("check(\"{page}\")"));
        assert_eq!(blocks(&page).iter().any(can_run), is_run, "{page}");
    }
    assert!(text("README.md").contains("```sh"));
}

#[test]
fn the_readme_runs_as_printed() {
    check("README.md");
}

#[test]
fn the_tutorial_runs_as_printed() {
    check("docs/tutorial.md");
}

#[test]
fn fine_tuning_runs_as_printed() {
    check("docs/fine-tuning.md");
}

#[test]
fn the_plans_of_large_runs_run_as_printed() {
    check("docs/large-runs.md");
}

#[test]
fn the_comparison_of_models_runs_as_printed() {
    check("docs/evaluating.md");
}

#[test]
fn the_measures_of_quality_run_as_printed() {
    check("docs/quality.md");
}

#[test]
fn the_examples_of_json_run_as_printed() {
    check("docs/json.md");
}
