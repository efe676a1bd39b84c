//! The figures of one set as a table for people.

use std::io;

use pfc_metrics::bootstrap::Interval;
use pfc_report::percent;
use pfc_verify::{Figure, PeopleFrom, TarRow, VerificationReport};

use crate::{document::ByQuality, pairs::Protocol, rates::rate};

/// Prints the figures to standard output.
///
/// # Errors
///
/// The I/O error of a closed or full standard output.
pub fn print(report: &VerificationReport) -> io::Result<()> {
    let mut table = pfc_cli::table([report.set.as_str(), "value", "95 % interval", "notes"]);
    for row in rows(report) {
        table.add_row(row);
    }
    pfc_cli::print_table(&table)
}

/// Prints errors by quality to standard output.
///
/// # Errors
///
/// The I/O error of a closed or full standard output.
pub fn print_by_quality(by_quality: &ByQuality) -> io::Result<()> {
    let column = by_quality.column.as_str();
    let mut table =
        pfc_cli::table([column, "pairs", "accuracy", "genuine rejected", "impostors accepted"]);
    for bin in &by_quality.bins {
        let range = match bin.quality {
            Some([low, high]) => format!("{low:.4} to {high:.4}"),
            None => "not known".to_owned(),
        };
        let of = |n: u64, all: u64| match all {
            0 => "–".to_owned(),
            all => format!("{} % ({n} of {all})", percent(n as f64 / all as f64)),
        };
        table.add_row([
            range,
            (bin.n_genuine + bin.n_impostor).to_string(),
            format!("{} %", percent(bin.accuracy())),
            of(bin.n_rejected, bin.n_genuine),
            of(bin.n_accepted, bin.n_impostor),
        ]);
    }
    pfc_cli::print_table(&table)
}

type Row = [String; 4];

fn rows(report: &VerificationReport) -> Vec<Row> {
    let mut rows = vec![accuracy(report), threshold(report)];
    if let Some(pca) = &report.pca {
        rows.push(row(
            "accuracy after PCA",
            format!("{} ± {} %", percent(pca.mean), percent(pca.std)),
            pca.interval,
            format!("{} components", pca.components),
        ));
    }
    if let Some(val) = &report.val {
        rows.push(row(
            &format!("VAL@FAR {}", rate(val.far_target)),
            format!("{} ± {} %", percent(val.val), percent(val.std)),
            val.interval,
            format!("at a FAR of {} on the folds", rate(val.far)),
        ));
    }
    rows.extend(report.tar_at_far.iter().map(|tar| tar_at_far(report, tar)));
    rows.push(figure("AUC", report, &report.auc));
    rows.push(figure("EER", report, &report.eer));
    rows.push(row("mean norm", format!("{:.3}", report.mean_norm), None, String::new()));
    rows.push(row("pairs", report.n_pairs.to_string(), None, classes(report)));
    rows.push(row("people", report.n_people.to_string(), None, people(report)));
    rows
}

fn row(name: &str, value: String, interval: Option<Interval>, notes: String) -> Row {
    [name.to_owned(), value, pfc_report::interval(interval), notes]
}

fn accuracy(report: &VerificationReport) -> Row {
    let accuracy = &report.accuracy;
    let mean = percent(accuracy.mean);
    match (report.protocol, accuracy.std) {
        (Protocol::TenFold, Some(std)) => row(
            "accuracy",
            format!("{mean} ± {} %", percent(std)),
            accuracy.interval,
            "ten folds, mean ± deviation".to_owned(),
        ),
        _ => row(
            "accuracy",
            format!("{mean} %"),
            accuracy.interval,
            "at the list's own best threshold".to_owned(),
        ),
    }
}

fn threshold(report: &VerificationReport) -> Row {
    let distance = report.accuracy.threshold;
    let notes = format!("squared L2; as cosine similarity {:.4}", 1.0 - distance / 2.0);
    row("threshold", format!("{distance:.3}"), None, notes)
}

fn tar_at_far(report: &VerificationReport, tar: &TarRow) -> Row {
    let name = format!("TAR@FAR {}", rate(tar.far));
    match (tar.tar, tar.threshold) {
        (Some(value), Some(threshold)) => row(
            &name,
            format!("{} %", percent(value)),
            tar.interval,
            format!(
                "rests on {} impostor pair{}; similarity > {threshold:.4}",
                tar.n_impostors_allowed,
                if tar.n_impostors_allowed == 1 { "" } else { "s" }
            ),
        ),
        _ if report.n_genuine == 0 => row(&name, "–".to_owned(), None, one_class(report)),
        _ => row(
            &name,
            "–".to_owned(),
            None,
            format!("finer than {} impostor pairs can measure", report.n_impostor),
        ),
    }
}

fn figure(name: &str, report: &VerificationReport, figure: &Option<Figure>) -> Row {
    match figure {
        Some(figure) => {
            row(name, format!("{} %", percent(figure.value)), figure.interval, String::new())
        }
        None => row(name, "–".to_owned(), None, one_class(report)),
    }
}

fn one_class(report: &VerificationReport) -> String {
    let missing = if report.n_genuine == 0 { "genuine" } else { "impostor" };
    format!("the set has no {missing} pairs")
}

fn classes(report: &VerificationReport) -> String {
    format!("{} genuine + {} impostor", report.n_genuine, report.n_impostor)
}

fn people(report: &VerificationReport) -> String {
    let images = format!("{} images", report.n_images);
    match report.people_from {
        PeopleFrom::Names => images,
        PeopleFrom::Pairs => format!("{images}; people guessed from the genuine pairs"),
    }
}
