//! IJB-B and IJB-C.

use maud::html;
use pfc_report::{
    Table, chart, dash,
    html::{Markup, text},
    percent, share, small,
};

use super::{
    Entry,
    cells::{figure, rests_on},
    different_rates,
    pictures::Pictures,
    section::{
        Compared, charts, curves_and_histograms, differences, incomplete, scores_at, summary, worst,
    },
};
use crate::{
    EvalError,
    ijb::{GalleryRow, IjbReport, SearchReport, TarTable, TemplateTarRow, pooling},
    rates::rate,
};

type Ijb<'a> = Entry<&'a IjbReport>;

/// The section of one of the two benchmarks.
pub fn section(entries: &[Ijb<'_>], pictures: &mut Pictures) -> Result<Markup, EvalError> {
    let tables: Vec<(String, &TarTable, &IjbReport)> = entries.iter().flat_map(tables).collect();
    let named: Vec<chart::Curve<'_>> =
        tables.iter().map(|(name, table, report)| table.curve(name, report.n_impostor)).collect();
    let histograms = entries.iter().filter_map(|entry| {
        let table = entry.of.one_to_one.first()?;
        let row = table.rows.iter().find(|row| row.far == 1e-4 && !row.finer_than_data);
        let threshold = row.map(|row| (row.far, row.threshold));
        Some(scores_at(&entry.model, table.histogram.as_ref()?, threshold))
    });
    let all = curves_and_histograms(&named, histograms.collect());
    let of_entry = |entry: &Ijb<'_>| {
        let table = entry.of.one_to_one.first()?;
        let source = entry.of.images.as_ref();
        let (accepts, rejects) = (&table.worst_accepts, &table.worst_rejects);
        Some(worst(&entry.model, source, accepts, rejects, pictures))
    };
    let worst: Vec<Markup> = entries.iter().filter_map(of_entry).collect();
    let compared = tables.iter().map(|(name, table, report)| Compared {
        model: name,
        judged_on: holds(report),
        figures: (0..)
            .zip(&table.rows)
            .map(|(place, row)| (format!("TAR@FAR {}", rate(row.far)), row.tar, place))
            .collect(),
        replicates: table.replicates.as_ref(),
    });
    let compared: Vec<Compared<'_>> = compared.collect();
    Ok(html! {
        (summary(entries.iter().map(|entry| holds(entry.of))))
        (incomplete(entries.iter().map(|entry| &entry.of.incomplete[..])))
        h3 { "1:1 verification" }
        p.note {
            "TAR where at most that share of the impostor pairs is accepted, with its interval; \
             “nearest” is the reading that papers print."
        }
        (one_to_one(entries))
        (differences(&compared))
        (charts(&all)?)
        (one_to_n(entries)?)
        @for pairs in &worst { (pairs) }
    })
}

/// What was judged, in words.
fn holds(report: &IjbReport) -> String {
    format!(
        "{} template pairs ({} genuine, {} impostor) of {} templates of {} faces",
        report.n_genuine + report.n_impostor,
        report.n_genuine,
        report.n_impostor,
        report.n_templates,
        report.n_faces
    )
}

/// The tables of a result, named by the model and, where there are several, by how faces were
/// pooled.
fn tables<'a>(entry: &'a Ijb<'a>) -> impl Iterator<Item = (String, &'a TarTable, &'a IjbReport)> {
    let several = entry.of.one_to_one.len() > 1;
    entry.of.one_to_one.iter().map(move |table| {
        let name = match several {
            true => format!("{} ({})", entry.model, pooling(&table.pooling)),
            false => entry.model.clone(),
        };
        (name, table, entry.of)
    })
}

fn one_to_one(entries: &[Ijb<'_>]) -> Markup {
    let tables = || {
        entries.iter().flat_map(|entry| {
            entry.of.one_to_one.iter().map(move |table| (entry.model.as_str(), table))
        })
    };
    let fars = different_rates(tables().flat_map(|table| &table.1.rows).map(|row| row.far));
    let mut head = ["model", "options"].map(str::to_owned).to_vec();
    head.extend(fars.iter().map(|&far| format!("TAR@FAR {}", rate(far))));
    head.push("AUC".to_owned());
    let mut rows = Table::new(head);
    for (model, table) in tables() {
        let cell = |&far: &f64| {
            let found = table.rows.iter().find(|row| row.far == far);
            found.map_or_else(dash, tar_cell)
        };
        let mut cells = vec![small(&[&pooling(&table.pooling)])];
        cells.extend(fars.iter().map(cell));
        cells.push(share(table.auc, table.auc_interval, &[]));
        rows.row(model, cells);
    }
    rows.html()
}

fn tar_cell(row: &TemplateTarRow) -> Markup {
    let nearest = format!("nearest {}", percent(row.nearest_tar));
    share(
        row.tar,
        row.interval,
        &[&nearest, &rests_on(row.n_impostors_allowed, row.finer_than_data)],
    )
}

fn one_to_n(entries: &[Ijb<'_>]) -> Result<Markup, EvalError> {
    let searches: Vec<(&str, &SearchReport)> = entries
        .iter()
        .filter_map(|entry| Some((entry.model.as_str(), entry.of.one_to_n.as_ref()?)))
        .collect();
    if searches.is_empty() {
        return Ok(Markup::default());
    }
    let rows = searches.iter().flat_map(|search| &search.1.galleries).flat_map(|g| &g.tpir);
    let fpirs = different_rates(rows.filter(|row| row.tpir.is_some()).map(|row| row.fpir));
    let mut head = ["model", "gallery", "rank-1", "rank-5", "rank-10"].map(str::to_owned).to_vec();
    head.extend(fpirs.iter().map(|&fpir| format!("TPIR@FPIR {}", rate(fpir))));
    head.push("probes".to_owned());
    let mut table = Table::new(head);
    for (model, search) in &searches {
        for gallery in &search.galleries {
            let mut cells = vec![text(&gallery.name)];
            cells.extend(gallery.rank.map(figure));
            cells.extend(fpirs.iter().map(|&fpir| tpir_cell(gallery, fpir)));
            cells.push(text(format!("{} + {}", gallery.n_mated, gallery.n_non_mated)));
            table.row(model, cells);
        }
        let mut cells = vec![text("all")];
        cells.extend((0..3).map(|k| share(search.top[k], search.top_intervals[k], &[])));
        cells.extend(fpirs.iter().map(|&fpir| {
            let mean = search.mean_tpir.iter().find(|mean| mean.0 == fpir);
            mean.map_or_else(Markup::default, |mean| {
                small(&[&format!("reference {}", percent(mean.1))])
            })
        }));
        cells.push(Markup::default());
        table.row(model, cells);
    }
    Ok(html! {
        h3 { "1:N search" }
        p.note {
            "TPIR where at most that share of the probes of strangers is answered; “reference” is the \
             threshold of the published script. Probes: of people in the gallery + of others."
        }
        (table.html())
        (charts(&search_charts(&searches))?)
    })
}

/// Shares found by rank, and in the open set, of each gallery.
fn search_charts(searches: &[(&str, &SearchReport)]) -> Vec<chart::Chart> {
    let galleries = searches.iter().flat_map(|(model, search)| {
        search.galleries.iter().map(move |gallery| (format!("{model}, {}", gallery.name), gallery))
    });
    let galleries: Vec<(String, &GalleryRow)> = galleries.collect();
    let with_cmc = galleries.iter().filter(|(_, gallery)| !gallery.cmc.is_empty());
    let cmcs: Vec<(&str, &[f64])> =
        with_cmc.map(|(name, gallery)| (&name[..], &gallery.cmc[..])).collect();
    let with_curve = galleries.iter().filter(|(_, gallery)| !gallery.open_set.is_empty());
    let open_sets: Vec<chart::Curve<'_>> =
        with_curve.map(|(name, gallery)| gallery.curve(name)).collect();
    let cmc = (!cmcs.is_empty()).then(|| chart::cmc(chart::PROBES_FOUND, &cmcs));
    let open_set = (!open_sets.is_empty()).then(|| chart::open_set(&open_sets));
    cmc.into_iter().chain(open_set).collect()
}

fn tpir_cell(gallery: &GalleryRow, fpir: f64) -> Markup {
    let Some(row) = gallery.tpir.iter().find(|row| row.fpir == fpir) else {
        return dash();
    };
    let reference = format!("reference {}", percent(row.reference_tpir));
    let rests_on = match row.n_non_mated_allowed {
        _ if row.finer_than_data => "finer than the data".to_owned(),
        1 => "on 1 probe".to_owned(),
        n => format!("on {n} probes"),
    };
    let notes = [reference.as_str(), &rests_on];
    row.tpir.map_or_else(dash, |tpir| share(tpir.value, tpir.interval, &notes))
}
