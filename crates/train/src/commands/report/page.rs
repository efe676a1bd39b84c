//! The page: what the runs came to, their curves, and what they were.

use pfc_cli::units;
use pfc_report::{
    Page, ReportError, Table, dash,
    html::{Markup, html, text},
    percent,
};

use super::charts::{charts, sets};
use crate::log::{StartRecord, history::History};

/// The whole page.
///
/// # Errors
///
/// [`ReportError`] if a chart cannot be drawn.
pub(super) fn page(runs: &[History]) -> Result<String, ReportError> {
    let names: Vec<&str> = runs.iter().map(|run| &run.name[..]).collect();
    let mut page = Page::new(&format!("Training of {}", names.join(", ")));
    page.push(html! {
        p.pale { "Page by pfc-train " (env!("CARGO_PKG_VERSION")) "." }
        nav {
            a href="#result" { "Result" } " " a href="#curves" { "Curves" } " "
            a href="#verification" { "Verification" } " " a href="#configuration" { "Configuration" }
            " " a href="#machines" { "Machines" }
        }
    });
    page.heading("result", "Result", "");
    page.push(result(runs));
    page.heading("curves", "Curves", "");
    page.paragraph("Of long curves, means of stretches of the same number of steps are drawn.");
    let drawn =
        charts(runs).iter().map(|chart| chart.inline_svg()).collect::<Result<Vec<_>, _>>()?;
    if drawn.is_empty() {
        page.paragraph("No run has two lines of figures yet.");
    }
    page.push(html! { div.charts { @for svg in &drawn { figure { (svg) } } } });
    page.heading("verification", "Verification", "");
    runs.iter().for_each(|run| page.push(verification(run)));
    page.heading("configuration", "Configuration", "");
    page.push(configuration(runs));
    page.heading("machines", "Machines", "each start of a run");
    page.push(machines(runs));
    Ok(page.finish())
}

/// A row for each run: how far it came, and its last figures.
fn result(runs: &[History]) -> Markup {
    let sets = sets(runs);
    let mut head: Vec<String> =
        ["run", "network", "data", "epochs", "steps", "loss", "images/s"].map(str::to_owned).into();
    head.extend(sets.iter().flat_map(|set| [format!("{set}, last %"), format!("{set}, best %")]));
    let mut table = Table::new(head).with_texts(&[0, 1, 2]);
    for run in runs {
        let last = run.last();
        let setting = |name: &str| unquoted(run.setting(name).unwrap_or_default());
        let number = |value: Option<f64>, decimals: usize| match value {
            Some(value) => text(format!("{value:.decimals$}")),
            None => dash(),
        };
        let mut cells = vec![
            text(setting("model.network")),
            text(data(run)),
            number(last.map(|record| record.epoch), 2),
            last.map_or_else(dash, |record| text(units::count(record.step))),
            number(last.and_then(|record| record.loss), 3),
            number(last.map(|record| record.images_per_s), 1),
        ];
        for set in &sets {
            let accuracies = run.eval_curve(set, |score| Some(score.accuracy));
            let best = accuracies.iter().map(|(_, accuracy)| *accuracy).fold(f64::NAN, f64::max);
            let last = accuracies.last().map_or(f64::NAN, |(_, accuracy)| *accuracy);
            cells.extend([text(percent(last)), text(percent(best))]);
        }
        table.row(&run.name, cells);
    }
    table.html()
}

/// What a run was trained on, in a word or two.
fn data(run: &History) -> String {
    match run.setting("data.synthetic") {
        Some(made_up) => format!("made-up images {made_up}"),
        None => unquoted(run.setting("data.path").unwrap_or_default()),
    }
}

fn unquoted(toml: String) -> String {
    toml.trim_matches(['"', '\'']).to_owned()
}

/// Every measurement of a run.
fn verification(run: &History) -> Markup {
    if run.evals().next().is_none() {
        return html! { p { b { (run.name) } ": not measured yet" } };
    }
    let head = ["set", "step", "epoch", "accuracy %", "± %", "AUC", "threshold", "mean norm"];
    let mut table = Table::new(head);
    for record in run.evals() {
        let score = &record.score;
        let or_dash = |value: Option<String>| value.map_or_else(dash, text);
        table.row(
            &score.set,
            [
                text(units::count(record.step)),
                text(format!("{:.2}", record.epoch)),
                text(percent(score.accuracy)),
                or_dash(score.std.map(percent)),
                or_dash(score.auc.map(|auc| format!("{auc:.4}"))),
                text(format!("{:.3}", score.threshold)),
                text(format!("{:.1}", score.mean_norm)),
            ],
        );
    }
    html! { h3 { (run.name) } (table.html()) }
}

/// What differs among the runs, then each configuration as it is.
fn configuration(runs: &[History]) -> Markup {
    let mut names: Vec<String> = Vec::new();
    for run in runs {
        for (section, keys) in &run.config {
            let keys = keys.as_table().into_iter().flat_map(|keys| keys.keys());
            names.extend(keys.map(|key| format!("{section}.{key}")));
        }
    }
    names.sort();
    names.dedup();
    let differs =
        |name: &String| runs.windows(2).any(|pair| pair[0].setting(name) != pair[1].setting(name));
    let head: Vec<&str> = ["key"].into_iter().chain(runs.iter().map(|run| &run.name[..])).collect();
    let columns: Vec<usize> = (0..=runs.len()).collect();
    let mut table = Table::new(head).with_texts(&columns);
    let mut n_different = 0;
    for name in names.iter().filter(|name| differs(name)) {
        n_different += 1;
        let cell = |run: &History| run.setting(name).map_or_else(dash, text);
        table.row(name, runs.iter().map(cell).collect::<Vec<_>>());
    }
    html! {
        @if runs.len() > 1 && n_different == 0 { p { "The runs have the same configuration." } }
        @if n_different > 0 { p { "Keys in which the runs differ:" } (table.html()) }
        @for run in runs {
            details { summary { (run.name) "/config.toml" } div.scroll { pre { (run.config_text) } } }
        }
    }
}

/// Every start of every run.
fn machines(runs: &[History]) -> Markup {
    let head = [
        "run",
        "began",
        "after step",
        "machine",
        "processor",
        "device",
        "ranks",
        "threads",
        "version",
        "command",
    ];
    let mut table = Table::new(head).with_texts(&[0, 1, 3, 4, 5, 8, 9]);
    let mut n_starts = 0;
    for run in runs {
        for start in &run.starts {
            n_starts += 1;
            let StartRecord { time, step, version, device, processor, host, .. } = start;
            table.row(
                &run.name,
                [
                    text(time),
                    text(units::count(*step)),
                    text(host),
                    text(processor),
                    text(device),
                    text(start.ranks),
                    text(start.threads),
                    text(version),
                    text(start.command.join(" ")),
                ],
            );
        }
    }
    html! {
        @if n_starts == 0 { p { "These runs kept no record of what they ran on." } }
        @else { (table.html()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::metrics::Record;

    fn run(name: &str, lr: &str, losses: &[f64]) -> History {
        let lines = losses.iter().enumerate().map(|(i, loss)| {
            let epoch = 0.5 * i as f64;
            format!(
                "{{\"kind\":\"train\",\"step\":{i},\"epoch\":{epoch},\"loss\":{loss},\"grad_norm\":1,\
                 \"lr\":0.1,\"cavg\":0.1,\"images_per_s\":100,\"data_wait\":0,\"head_ms\":1}}"
            )
        });
        let eval = "{\"kind\":\"eval\",\"step\":3,\"epoch\":1.5,\"set\":\"<lfw>\",\"accuracy\":0.9125,\
                    \"std\":null,\"auc\":0.5,\"threshold\":1.5,\"mean_norm\":20.0}";
        let records = lines.chain([eval.to_owned()]);
        let config_text = format!("[optim]\nlr = {lr}\n[model]\nnetwork = \"r<18>\"\n");
        History {
            name: name.to_owned(),
            folder: format!("runs/{name}"),
            config: config_text.parse().unwrap(),
            config_text,
            records: records.map(|line| serde_json::from_str::<Record>(&line).unwrap()).collect(),
            starts: vec![StartRecord::now(0, tch::Device::Cpu, 2, 1)],
        }
    }

    #[test]
    fn a_page_compares_runs_without_a_script_or_a_reference_to_elsewhere() {
        let runs = [run("one & only", "0.1", &[5.0, 4.0, 3.5]), run("b", "0.2", &[6.0, 5.0, 4.5])];
        let html = page(&runs).unwrap();
        for text in ["one &amp; only", "r&lt;18&gt;", "91.25", "optim.lr", "&lt;lfw&gt;", "3.500"] {
            assert!(html.contains(text), "{text} is missing");
        }
        assert!(html.matches("<svg").count() >= 6);
        for foreign in ["<script", "http://", "https://", "<link", "src="] {
            let found = html.replace("http://www.w3.org/2000/svg", "").contains(foreign);
            assert!(!found, "{foreign}");
        }
    }

    #[test]
    fn a_run_without_figures_has_a_page() {
        let mut empty = run("a", "0.1", &[]);
        empty.records.clear();
        empty.starts.clear();
        let html = page(&[empty]).unwrap();
        assert!(html.contains("No run has two lines of figures yet"));
        assert!(html.contains("not measured yet") && html.contains("kept no record"));
    }
}
