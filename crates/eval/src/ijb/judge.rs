//! From embeddings to the tables.

use pfc_metrics::{
    Rows,
    bootstrap::{Bootstrap, Interval, identity_intervals},
    ijb::{
        Faces, Gallery, Pooling, Probes, ScoredPairs, Search, Templates, pair_intervals, pool,
        score_pairs, search,
    },
    roc::Far,
    scores::{Curve, SortedScores},
};
use pfc_report::chart::Histogram;
use pfc_verify::Figure;

use super::{
    GalleryRow, IjbReport, IjbSet, SearchList, SearchLists, SearchReport, TarTable, TemplateTarRow,
    TpirRow, Units,
};
use crate::{
    EvalError,
    worst::{Source, Worst, WorstPair},
};

/// Points of the ROC curve that are kept for plots.
const ROC_POINTS: usize = 400;

/// Ranks of the closed set.
const RANKS: [u32; 3] = [1, 5, 10];

/// Ranks of the CMC curve.
const CMC_RANKS: usize = 100;

/// FAR whose threshold tells which of the worst pairs are judged wrongly.
const WRONG_AT_FAR: f64 = 1e-4;

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Ways of pooling, at least one; the first is used for 1:N.
    pub poolings: Vec<Pooling>,
    /// FARs of the 1:1 tables.
    pub fars: Vec<Far>,
    /// FPIRs of the open set, in (0, 1].
    pub fpirs: Vec<f64>,
    /// Confidence intervals; `n_replicates` 0 leaves them out.
    pub bootstrap: Bootstrap,
    /// Whether to search the galleries.
    pub one_to_n: bool,
}

impl Default for Options {
    /// The reference's flags and rates; no intervals.
    fn default() -> Options {
        let far = |far| Far::new(far).expect("between 0 and 1");
        Options {
            poolings: vec![Pooling::default()],
            fars: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1].map(far).to_vec(),
            fpirs: vec![1e-4, 1e-3, 1e-2, 1e-1, 1.0],
            bootstrap: Bootstrap { n_replicates: 0, ..Bootstrap::default() },
            one_to_n: true,
        }
    }
}

/// Embeddings of all faces, in file order.
#[derive(Debug, Clone, Copy)]
pub struct Embedded<'a> {
    /// `[F, D]`, of the aligned faces.
    pub original: Rows<'a>,
    /// `[F, D]`, of their mirror images.
    pub mirrored: Option<Rows<'a>>,
}

/// The figures, and the score of each pair behind the first table.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The figures.
    pub report: IjbReport,
    /// `[P]`, in the order of the list.
    pub scores: Vec<f64>,
}

/// Judges the embeddings.
///
/// # Errors
///
/// [`EvalError::FeatureRows`] and [`EvalError::NoMirrored`] for embeddings that are not those of the
/// set, [`EvalError::Metric`] for broken ones.
pub fn judge(set: &IjbSet, embedded: &Embedded, options: &Options) -> Result<Judged, EvalError> {
    check(set, embedded, options)?;
    let (units, unit_of) = units(set);
    let order = set.faces.by_name();
    let portraits = portraits(set, &order);
    let mut scores = Vec::new();
    let mut tables = Vec::with_capacity(options.poolings.len());
    let mut one_to_n = None;
    for (i, pooling) in options.poolings.iter().enumerate() {
        let faces = Faces {
            original: embedded.original,
            mirrored: embedded.mirrored,
            detector_score: &set.faces.detector_score,
            template: &set.faces.template,
            media: &set.faces.media,
            order: &order,
        };
        let templates = pool(&faces, pooling)?;
        let pair_scores = score_pairs(templates.rows(), &set.pairs.pairs)?;
        let mut table = table(set, *pooling, &templates, &pair_scores, &unit_of, options)?;
        (table.worst_accepts, table.worst_rejects) =
            worst_pairs(set, &pair_scores, &portraits, &table.rows);
        tables.push(table);
        if i == 0 {
            scores = pair_scores;
            if let (true, Some(lists)) = (options.one_to_n, &set.search) {
                one_to_n = Some(search_all(&templates, lists, options)?);
            }
        }
    }
    let n_genuine = set.pairs.same.iter().filter(|&&same| same).count();
    let report = IjbReport {
        benchmark: set.benchmark.facts().name,
        n_faces: set.faces.names.len(),
        n_templates: set.index.len(),
        n_genuine,
        n_impostor: set.pairs.same.len() - n_genuine,
        incomplete: set.differences(),
        images: Some(set.images()).filter(|dir| dir.is_dir()).map(|dir| Source::of(&dir)),
        units,
        one_to_one: tables,
        one_to_n,
    };
    Ok(Judged { report, scores })
}

fn check(set: &IjbSet, embedded: &Embedded, options: &Options) -> Result<(), EvalError> {
    let n_faces = set.faces.names.len();
    let rows = [Some(embedded.original), embedded.mirrored];
    if let Some(wrong) = rows.iter().flatten().find(|rows| rows.len() != n_faces) {
        return Err(EvalError::FeatureRows { n_rows: wrong.len(), n_faces });
    }
    let flip = options.poolings.iter().any(|pooling| pooling.flip);
    if flip && embedded.mirrored.is_none() {
        return Err(EvalError::NoMirrored);
    }
    Ok(())
}

fn table(
    set: &IjbSet,
    pooling: Pooling,
    templates: &Templates,
    scores: &[f64],
    units: &[u32],
    options: &Options,
) -> Result<TarTable, EvalError> {
    let same = &set.pairs.same;
    let sorted = SortedScores::new(scores, same)?;
    let mut fars = options.fars.clone();
    fars.sort_by(|a, b| a.get().total_cmp(&b.get()));
    let targets: Vec<f64> = fars.iter().map(|far| far.get()).collect();
    let nearest = sorted.nearest(&targets, Curve::Decimated);
    let scored = ScoredPairs { pairs: &set.pairs.pairs, scores, same, units };
    let intervals = pair_intervals(&options.bootstrap, &scored, &sorted, &fars)?;
    let row = |i: usize| {
        let at_most = sorted.at_most(fars[i]);
        TemplateTarRow {
            far: targets[i],
            nearest_tar: nearest[i].tar,
            nearest_far: nearest[i].far,
            tar: at_most.tar,
            interval: intervals.tar[i],
            threshold: at_most.threshold,
            n_impostors_allowed: at_most.allowed,
            finer_than_data: at_most.allowed == 0,
        }
    };
    Ok(TarTable {
        pooling,
        rows: (0..fars.len()).map(row).collect(),
        auc: sorted.auc(),
        auc_interval: intervals.auc,
        replicates: Some(intervals.replicates).filter(|all| !all.figures.is_empty()),
        zero_templates: templates.zeros().collect(),
        roc: sorted.roc(ROC_POINTS),
        histogram: Some(Histogram::new(scores, same)),
        worst_accepts: Vec::new(),
        worst_rejects: Vec::new(),
    })
}

/// The face to show of each template: the one with the best detector score, of equal ones the first
/// by name.
fn portraits(set: &IjbSet, by_name: &[u32]) -> Vec<u32> {
    let mut portraits = vec![u32::MAX; set.index.len()];
    let score = |face: u32| set.faces.detector_score[face as usize];
    for &face in by_name {
        let Some(row) = set.index.row(set.faces.template[face as usize]) else { continue };
        let best = &mut portraits[row as usize];
        if *best == u32::MAX || score(face) > score(*best) {
            *best = face;
        }
    }
    portraits
}

/// False accepts and false rejects, worst first.
fn worst_pairs(
    set: &IjbSet,
    scores: &[f64],
    portraits: &[u32],
    rows: &[TemplateTarRow],
) -> (Vec<WorstPair>, Vec<WorstPair>) {
    let (pairs, same) = (&set.pairs.pairs, &set.pairs.same);
    let decades = |row: &TemplateTarRow| (row.far / WRONG_AT_FAR).log10().abs();
    let row = rows.iter().min_by(|a, b| decades(a).total_cmp(&decades(b)));
    let threshold = row.map_or(0.0, |row| row.threshold);
    let name = |template: u32| set.faces.names[portraits[template as usize] as usize].clone();
    let pair = |pair: usize| WorstPair {
        pair: None,
        left: name(pairs[pair].0),
        right: name(pairs[pair].1),
        similarity: scores[pair],
        wrong: (scores[pair] > threshold) != same[pair],
    };
    let worst = Worst::of(scores, same, |pair| pairs[pair]);
    let list = |indices: Vec<usize>| indices.into_iter().map(pair).collect();
    (list(worst.accepts), list(worst.rejects))
}

/// The person of each template if the 1:N lists name all, else the template itself.
fn units(set: &IjbSet) -> (Units, Vec<u32>) {
    let mut subject = vec![None; set.index.len()];
    if let Some(lists) = &set.search {
        let all = lists.galleries.iter().map(|(_, list)| list).chain([&lists.probes]);
        for (&row, &id) in all.flat_map(|list| list.rows.iter().zip(&list.subjects)) {
            subject[row as usize] = Some(id);
        }
    }
    let Some(subjects) = subject.into_iter().collect::<Option<Vec<u64>>>() else {
        return (Units::Templates, (0..set.index.len() as u32).collect());
    };
    let mut ids = subjects.clone();
    ids.sort_unstable();
    ids.dedup();
    let unit = |id: &u64| ids.partition_point(|other| other < id) as u32;
    (Units::Subjects, subjects.iter().map(unit).collect())
}

fn search_all(
    templates: &Templates,
    lists: &SearchLists,
    options: &Options,
) -> Result<SearchReport, EvalError> {
    let mut galleries = Vec::with_capacity(lists.galleries.len());
    let mut hits = vec![[0.0; RANKS.len()]; lists.probes.rows.len()];
    for (name, list) in &lists.galleries {
        let gallery = Gallery { rows: &list.rows, subjects: &list.subjects };
        let probes = Probes { rows: &lists.probes.rows, subjects: &lists.probes.subjects };
        let found = search(templates.rows(), gallery, probes)?;
        for mated in &found.mated {
            let hits = hits[mated.probe as usize].iter_mut().zip(RANKS);
            hits.for_each(|(hit, k)| *hit += f64::from(u8::from(mated.rank < k)));
        }
        galleries.push(gallery_row(name, list, &lists.probes, &found, options)?);
    }
    let (top, top_intervals) = top(&lists.probes, &hits, &options.bootstrap);
    let mean = |i: usize| {
        let tpirs =
            galleries.iter().filter_map(|g: &GalleryRow| Some(g.tpir.get(i)?.reference_tpir));
        let (n, sum) = tpirs.fold((0, 0.0), |(n, sum), tpir| (n + 1, sum + tpir));
        (n > 0).then(|| (options.fpirs[i], sum / f64::from(n)))
    };
    Ok(SearchReport {
        top,
        top_intervals,
        mean_tpir: (0..options.fpirs.len()).filter_map(mean).collect(),
        galleries,
    })
}

/// Hits in any gallery over all probes, and their intervals by resampling people.
fn top(
    probes: &SearchList,
    hits: &[[f64; RANKS.len()]],
    bootstrap: &Bootstrap,
) -> ([f64; RANKS.len()], [Option<Interval>; RANKS.len()]) {
    let mut by_person = std::collections::BTreeMap::new();
    for (person, hits) in probes.subjects.iter().zip(hits) {
        let counts = by_person.entry(person).or_insert_with(|| vec![0.0; RANKS.len() + 1]);
        counts[0] += 1.0;
        counts[1..].iter_mut().zip(hits).for_each(|(count, hit)| *count += hit);
    }
    let counts: Vec<Vec<f64>> = by_person.into_values().collect();
    let intervals = identity_intervals(bootstrap, &counts);
    let sum = |k: usize| counts.iter().map(|row| row[k]).sum::<f64>();
    let all = [0, 1, 2];
    (all.map(|k| sum(k + 1) / sum(0).max(1.0)), all.map(|k| intervals.get(k).copied().flatten()))
}

fn gallery_row(
    name: &str,
    gallery: &SearchList,
    probes: &SearchList,
    found: &Search,
    options: &Options,
) -> Result<GalleryRow, EvalError> {
    let n_non_mated = found.non_mated.len() as u64;
    // FPIR 1 is in the reference's table but no rate that anything can exceed.
    let strict = |fpir: f64| Far::new(fpir).ok();
    let reference = found.tpir(&options.fpirs).unwrap_or_default();
    let strict_at: Vec<Option<f64>> = options
        .fpirs
        .iter()
        .map(|&fpir| Some(found.tpir_at_most(&[strict(fpir)?])?[0].threshold))
        .collect();
    let shares = shares(found, probes, &strict_at, &options.bootstrap);
    let row = |(i, at): (usize, &pfc_metrics::ijb::TpirAt)| {
        let fpir = options.fpirs[i];
        let allowed = strict(fpir).map_or(n_non_mated, |far| far.allowed(n_non_mated));
        TpirRow {
            fpir,
            reference_tpir: at.tpir,
            reference_threshold: at.threshold,
            tpir: strict_at[i].and(shares[RANKS.len() + i]),
            n_non_mated_allowed: allowed,
            finer_than_data: allowed == 0,
        }
    };
    Ok(GalleryRow {
        name: name.to_owned(),
        n_templates: gallery.rows.len(),
        n_mated: found.mated.len(),
        n_non_mated: found.non_mated.len(),
        rank: [shares[0], shares[1], shares[2]],
        cmc: if found.mated.is_empty() { Vec::new() } else { found.cmc(CMC_RANKS) },
        tpir: reference.iter().enumerate().map(row).collect(),
        open_set: found.open_set(),
    })
}

/// Shares of mated probes: found at each rank, then at rank 1 above each threshold. Intervals
/// resample people; thresholds stay.
fn shares(
    found: &Search,
    probes: &SearchList,
    thresholds: &[Option<f64>],
    bootstrap: &Bootstrap,
) -> Vec<Option<Figure>> {
    let n_figures = RANKS.len() + thresholds.len();
    let mut by_person = std::collections::BTreeMap::new();
    for mated in &found.mated {
        let person = probes.subjects[mated.probe as usize];
        let counts = by_person.entry(person).or_insert_with(|| vec![0.0; n_figures + 1]);
        let ranks = RANKS.iter().map(|&k| mated.rank < k);
        let above = thresholds
            .iter()
            .map(|threshold| mated.rank == 0 && threshold.is_some_and(|t| mated.score > t));
        counts[0] += 1.0;
        for (count, hit) in counts[1..].iter_mut().zip(ranks.chain(above)) {
            *count += f64::from(u8::from(hit));
        }
    }
    let counts: Vec<Vec<f64>> = by_person.into_values().collect();
    let intervals: Vec<Option<Interval>> = identity_intervals(bootstrap, &counts);
    let sum = |k: usize| counts.iter().map(|row| row[k]).sum::<f64>();
    let share = |k: usize| Figure {
        value: sum(k + 1) / sum(0),
        interval: intervals.get(k).copied().flatten(),
    };
    (0..n_figures).map(|k| (!counts.is_empty()).then(|| share(k))).collect()
}
