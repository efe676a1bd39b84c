//! The figures of IJB-B and IJB-C as tables for people.

use std::io;

use pfc_report::{interval, percent};
use pfc_verify::Figure;

use crate::{
    ijb::{GalleryRow, IjbReport, SearchReport, TarTable, Units, pooling},
    rates::rate,
};

/// Prints all tables to standard output.
///
/// # Errors
///
/// The I/O error of a closed or full standard output.
pub(super) fn print(report: &IjbReport) -> io::Result<()> {
    for table in &report.one_to_one {
        one_to_one(report, table)?;
    }
    match &report.one_to_n {
        Some(search) => one_to_n(report, search),
        None => Ok(()),
    }
}

fn one_to_one(report: &IjbReport, of: &TarTable) -> io::Result<()> {
    let title = format!("{} 1:1", report.benchmark);
    let mut table = pfc_cli::table([title.as_str(), "nearest", "TAR", "95 % interval", "rests on"]);
    for row in &of.rows {
        table.add_row([
            format!("TAR@FAR {}", rate(row.far)),
            percent(row.nearest_tar),
            percent(row.tar),
            interval(row.interval),
            impostors(row.n_impostors_allowed, report.n_impostor),
        ]);
    }
    let blank = String::new;
    let auc_interval = interval(of.auc_interval);
    table.add_row(["AUC".to_owned(), blank(), percent(of.auc), auc_interval, blank()]);
    table.add_row(["options".to_owned(), blank(), blank(), blank(), pooling(&of.pooling)]);
    let pairs = format!("{} genuine + {} impostor", report.n_genuine, report.n_impostor);
    table.add_row(["pairs".to_owned(), blank(), blank(), blank(), pairs]);
    let units = match report.units {
        Units::Subjects => "people resampled for the intervals",
        Units::Templates => "templates resampled for the intervals",
    };
    let templates = format!("{} of {} faces; {units}", report.n_templates, report.n_faces);
    table.add_row(["templates".to_owned(), blank(), blank(), blank(), templates]);
    if !of.zero_templates.is_empty() {
        let note = format!("{} add up to zero and score 0", of.zero_templates.len());
        table.add_row(["templates".to_owned(), blank(), blank(), blank(), note]);
    }
    pfc_cli::print_table(&table)
}

fn impostors(allowed: u64, n: usize) -> String {
    match allowed {
        0 => format!("finer than {n} impostors can measure"),
        1 => "1 impostor".to_owned(),
        more => format!("{more} impostors"),
    }
}

fn one_to_n(report: &IjbReport, search: &SearchReport) -> io::Result<()> {
    let title = format!("{} 1:N", report.benchmark);
    let mut header = vec![title];
    for gallery in &search.galleries {
        header.push(gallery.name.clone());
        header.push("95 % interval".to_owned());
    }
    header.push("both".to_owned());
    header.push("95 % interval".to_owned());
    let mut table = pfc_cli::table(header);
    for (i, k) in [1, 5, 10].into_iter().enumerate() {
        let cells = |g: &GalleryRow| share(g.rank[i]);
        let both = [percent(search.top[i]), interval(search.top_intervals[i])];
        table.add_row(row(format!("rank-{k}"), search, cells, both));
    }
    for (i, (fpir, mean)) in search.mean_tpir.iter().enumerate() {
        let reference = |g: &GalleryRow| {
            [percent(g.tpir.get(i).map_or(f64::NAN, |at| at.reference_tpir)), String::new()]
        };
        let name = format!("TPIR@FPIR {}, reference", rate(*fpir));
        table.add_row(row(name, search, reference, [percent(*mean), String::new()]));
        if *fpir < 1.0 {
            let strict = |g: &GalleryRow| share(g.tpir.get(i).and_then(|at| at.tpir));
            let name = format!("TPIR@FPIR {}, at most", rate(*fpir));
            table.add_row(row(name, search, strict, Default::default()));
        }
    }
    let probes = |g: &GalleryRow| {
        [
            format!("{} templates", g.n_templates),
            format!("{} + {} probes", g.n_mated, g.n_non_mated),
        ]
    };
    table.add_row(row("mated + others".to_owned(), search, probes, Default::default()));
    pfc_cli::print_table(&table)
}

fn row(
    name: String,
    search: &SearchReport,
    cells: impl Fn(&GalleryRow) -> [String; 2],
    both: [String; 2],
) -> Vec<String> {
    let mut row = vec![name];
    row.extend(search.galleries.iter().flat_map(cells));
    row.extend(both);
    row
}

fn share(share: Option<Figure>) -> [String; 2] {
    match share {
        None => ["–".to_owned(), String::new()],
        Some(share) => [percent(share.value), interval(share.interval)],
    }
}
