//! The page of a review: what it holds, and what its script does in a browser.

use std::{fs, path::Path, process::Command};

use super::{embeddings, packed, person};
use crate::common::Bench;

/// Two pairs of people that look alike, as two questions in the folder `review`.
fn asked() -> Bench {
    let bench = packed("");
    let shows = |source: &str| match person(source) {
        who @ (3 | 5) => who - 1,
        who => who,
    };
    bench.write("data.npy", &embeddings(&bench, "data", shows));
    let line = "clean data --embeddings data.npy --pass merges --same-person 0.999";
    bench.run(&format!("{line} --maybe-same-person 0.7")).success();
    bench.run("review export data review --html --margin 2").success();
    bench
}

/// The value of the first attribute of that name, as text.
fn attribute(text: &str, name: &str) -> String {
    let value = text.split_once(&format!(" {name}=\"")).unwrap().1.split('"').next().unwrap();
    value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[test]
fn it_holds_the_table_and_every_answer_but_those_that_need_a_name() {
    let bench = asked();
    let table = fs::read_to_string(bench.path("review/review.csv")).unwrap();
    let html = fs::read_to_string(bench.path("review/review.html")).unwrap();
    let figures: Vec<&str> = html.split("<figure").skip(1).collect();
    // What the script writes, without any answer.
    let mut written = attribute(&html, "data-header") + "\n";
    for figure in &figures {
        let (id, rest) = (attribute(figure, "data-id"), attribute(figure, "data-rest"));
        written += &format!("{id},,{rest}\n");
    }
    assert_eq!(written, table);
    assert!(figures.len() == 2 && figures.iter().all(|figure| figure.contains("data:image/jpeg")));
    let merged = figures.iter().find(|figure| figure.contains("same person")).unwrap();
    for answer in ["1 keep", "2 drop", "3 relabel", "4 merge (suggested)", "5 different"] {
        assert!(merged.contains(answer), "{answer} in {merged}");
    }
    assert!(html.contains("</script>") && !html.contains("http"));
}

/// Presses keys, downloads, and keeps what is downloaded where it can be seen: the first question is answered
/// and left, the second one twice, as its first answer is taken back.
const VISITOR: &str = "<script>
URL.createObjectURL = (file) => {
  file.text().then((text) => { document.body.dataset.table = text; });
  return \"#\";
};
HTMLAnchorElement.prototype.click = () => {};
for (const key of [\"4\", \"2\", \"0\", \"5\"]) {
  document.dispatchEvent(new KeyboardEvent(\"keydown\", { key }));
}
document.getElementById(\"download\").click();
</script></body>";

/// The page as a browser without a window leaves it; none where there is no browser that runs.
fn visited(page: &Path) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", profile.path().display());
    // It opens a file and nothing else.
    let flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
                 --disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom";
    for browser in ["chromium", "chromium-browser", "google-chrome"] {
        let mut command = Command::new(browser);
        command.args(flags.split_whitespace()).arg(&profile);
        let Ok(output) = command.arg(format!("file://{}", page.display())).output() else {
            continue;
        };
        if output.status.success() {
            return Some(String::from_utf8(output.stdout).unwrap());
        }
    }
    pfc_testing::skip("no Chromium that runs is here to visit the page with");
    None
}

#[test]
fn keys_answer_and_the_table_with_the_answers_is_downloaded() {
    let bench = asked();
    let html = fs::read_to_string(bench.path("review/review.html")).unwrap();
    bench.write("visit.html", html.replace("</body>", VISITOR).as_bytes());
    let Some(left) = visited(&bench.path("visit.html")) else { return };
    let table = fs::read_to_string(bench.path("review/review.csv")).unwrap();
    let answers = [",,", ",merge,", ",different,"];
    let lines =
        table.lines().zip(answers).map(|(line, answer)| line.replacen(",,", answer, 1) + "\n");
    let answered = attribute(&left, "data-table");
    assert_eq!(answered, lines.collect::<String>());
    assert!(left.contains("2 of 2 answered"), "{left}");
    bench.write("answers.csv", answered.as_bytes());
    assert_eq!(bench.json("review import data answers.csv --json")["answers"], 2);
}
