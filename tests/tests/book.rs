//! The README and the book: what they link to is there, and what they print as commands runs.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use support::{
    benchmarks::{IJB, MEGAFACE},
    commands,
    pages::{Block, anchors, blocks, links, pages, prose, root, text},
    parse,
    shell::{programs, run},
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

/// A line that is neither, and a page that is named twice, end `mdbook`.
#[test]
fn every_line_of_the_summary_is_a_part_or_names_a_page_once() {
    let summary = text("docs/SUMMARY.md");
    let mut named = Vec::new();
    for line in summary.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let link = line.strip_prefix("- [").and_then(|rest| rest.strip_suffix(".md)"));
        let Some((_, page)) = link.and_then(|link| link.split_once("](")) else {
            panic!("`{line}` of docs/SUMMARY.md names no page");
        };
        assert!(!named.contains(&page), "docs/SUMMARY.md names {page}.md twice");
        named.push(page);
    }
}

/// What `mdbook` and GitHub would draw otherwise than it is written, or each in its own way.
#[test]
fn every_page_has_one_title_closed_blocks_whole_tables_and_no_tags() {
    for page in pages().iter().filter(|page| !page.ends_with("SUMMARY.md")) {
        let (whole, prose) = (text(page), prose(page));
        let n_titles = prose.lines().filter(|line| line.starts_with("# ")).count();
        assert!(whole.starts_with("# ") && n_titles == 1, "{page} has {n_titles} titles");
        let n_fences = whole.lines().filter(|line| line.starts_with("```")).count();
        assert!(n_fences.is_multiple_of(2), "{page} ends within a block");
        let parts: Vec<&str> = prose.split('`').collect();
        assert!(!parts.len().is_multiple_of(2), "{page} ends within a piece of code");
        for rest in parts.iter().step_by(2).flat_map(|part| part.split('<').skip(1)) {
            let is_tag = rest.starts_with(|c: char| c.is_alphabetic() || c == '/');
            assert!(!is_tag, "{page}: `<{rest}` is a tag");
        }
        check_tables(page, &prose);
    }
}

/// Has every row of a table have as many cells as the one above it.
fn check_tables(page: &str, prose: &str) {
    let n_bars = |line: &str| line.replace("\\|", "").matches('|').count();
    for (above, line) in prose.lines().zip(prose.lines().skip(1)) {
        if above.starts_with('|') && line.starts_with('|') {
            assert_eq!(n_bars(above), n_bars(line), "{page}: {line}");
        }
    }
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let mut lost = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap().to_owned();
        for (path, anchor) in links(&page) {
            // What is beside the book is not in it once it is built.
            let is_within = !page.starts_with("docs/") || !path.starts_with("..");
            assert!(is_within, "{page} links to {path}, which is not in the book");
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
    let (mut n_run, mut n_left_out) = (0, 0);
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.is_shell()) {
            let place = format!("{page}:{}", block.line);
            if !block.is_ignored() {
                n_run += 1;
                continue;
            }
            n_left_out += 1;
            let reason = block.above.strip_prefix("<!-- not run: ");
            let reason = reason.and_then(|reason| reason.strip_suffix(" -->"));
            let reason = reason.unwrap_or_else(|| panic!("{place} does not say why"));
            println!("{place} is not run: {reason}");
        }
    }
    println!("{n_run} blocks of commands are run, {n_left_out} are not");
    // The figure that a change of the pages is measured by: blocks are added to those that run.
    assert!(n_run >= 20, "{n_run} blocks are run");
}

/// What a block may be, by its tag. One of another tag is either a command that no test finds, or colours
/// that no reader sees.
const TAGS: [&str; 6] = ["sh", "sh ignore", "python", "toml", "text", ""];

#[test]
fn every_block_has_a_tag_by_which_tests_find_it() {
    for page in pages() {
        for line in text(&page).lines() {
            let is_hidden = line.starts_with([' ', '>', '~']) && line.contains("```");
            assert!(
                !is_hidden && !line.starts_with("~~~"),
                "{page}: a fence within a line: {line}"
            );
        }
        for block in blocks(&page) {
            let place = format!("{page}:{}", block.line);
            assert!(TAGS.contains(&&block.tag[..]), "{place} is a block of `{}`", block.tag);
            let is_prose = ["text", ""].contains(&&block.tag[..]);
            let is_command = |line: &&str| {
                ["pfc-", "scripts/", "cargo ", "pip ", "$ "].iter().any(|p| line.starts_with(p))
            };
            let command = block.text.lines().find(is_command).filter(|_| is_prose);
            assert_eq!(command, None, "{place} holds a command, and is no block of `sh`");
        }
    }
}

#[test]
fn every_key_of_a_configuration_on_a_page_is_one_that_there_is() {
    let reference = text("docs/configuration.md");
    let mut n_keys = 0;
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.tag == "toml") {
            let mut section = "";
            for line in block.text.lines() {
                if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                    section = name;
                } else if let Some((key, _)) = line.split_once('=') {
                    let key = format!("`{section}.{}`", key.trim());
                    assert!(reference.contains(&key), "{page}:{}: {key}", block.line);
                    n_keys += 1;
                }
            }
        }
    }
    assert!(n_keys > 3, "{n_keys} keys");
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
mkdir faces_emore && cp lfw.bin faces_emore/lfw.bin && cp lfw.bin faces_emore/cfp_fp.bin
cp lfw.bin faces_emore/agedb_30.bin
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
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        // Nothing drops what is static: the next run takes away what this one leaves.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("book");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        run(DATA, &folder, programs, "the data of the pages");
        folder
    });
    let copy = tempfile::tempdir().unwrap();
    run(&format!("cp -a {}/. .", made.display()), copy.path(), programs, "a copy");
    copy
}

/// Runs the blocks of a page as they are printed, in order, in one folder.
fn check(page: &str) {
    check_after("", page);
}

/// As [`check`], where commands of a shell make what the reader of that page has.
fn check_after(made: &str, page: &str) {
    let Some(programs) = programs() else { return };
    let folder = data(&programs);
    run(made, folder.path(), &programs, "what the reader has");
    let blocks = blocks(page);
    for block in blocks.iter().filter(|block| block.is_shell() && !block.is_ignored()) {
        run(&block.text, folder.path(), &programs, &format!("{page}:{}", block.line));
    }
}

#[test]
fn every_page_whose_commands_can_run_is_run_here() {
    let source = fs::read_to_string(root().join("tests/tests/book.rs")).unwrap();
    for page in pages() {
        let can_run = |block: &Block| block.is_shell() && !block.is_ignored();
        let is_run =
            ["check(", ", "].iter().any(|before| source.contains(&format!("{before}\"{page}\");")));
        assert_eq!(blocks(&page).iter().any(can_run), is_run, "{page}");
    }
    assert!(text("README.md").contains("```sh"));
}

#[test]
fn the_readme_runs_as_printed() {
    check("README.md");
}

#[test]
fn the_readme_of_the_wheel_pfc_ingest_runs_as_printed() {
    check_after("cp -r photographs crops", "crates/ingest/README.md");
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
fn the_benchmarks_and_the_comparison_of_models_run_as_printed() {
    check_after(&format!("{IJB}{MEGAFACE}"), "docs/evaluating.md");
}

#[test]
fn the_page_of_runs_is_written_as_printed() {
    let made = "cp -r runs/base runs/a && cp -r runs/base runs/b";
    check_after(made, "docs/watching.md");
}

#[test]
fn a_run_goes_on_in_arcface_torch_as_printed() {
    check_after("cp -r runs/base runs/a", "docs/training.md");
}

#[test]
fn the_measures_of_quality_run_as_printed() {
    check("docs/quality.md");
}

#[test]
fn the_examples_of_json_run_as_printed() {
    check("docs/json.md");
}
