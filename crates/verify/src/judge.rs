//! From embeddings to figures.

// N = images, P = pairs, D = embedding.

use pfc_metrics::{
    MetricError,
    bootstrap::{Bootstrap, Interval, People, Replicates, intervals_of, replicates},
    roc::{Far, Ranking, RocPoint},
    verification::{
        Accuracies, ReducedFolds, fuse_mirrored, norm, squared_distance, ten_fold, val_at_far,
    },
};
use pfc_model::MirroredEmbeddings;

use crate::{
    Accuracy, Figure, FoldRow, PairsSet, ReducedAccuracy, TarRow, ValRow, VerificationReport,
    VerifyError, pairs::Protocol,
};

/// FAR of the reference's VAL figure.
const VAL_FAR: f64 = 1e-3;

/// What an embedding is that has no direction.
const ZERO: &str = "zero, with its mirror image's added, and has no direction";

/// What to compute beyond the accuracy.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// FARs at which TAR is read off.
    pub fars: Vec<Far>,
    /// Confidence intervals; `n_replicates` 0 leaves them out, which is what a trainer wants.
    pub bootstrap: Bootstrap,
    /// Keep this many principal components in a second accuracy.
    pub pca: Option<usize>,
}

impl Default for Options {
    /// FARs 0.1, 0.01 and 0.001, no intervals, no PCA.
    fn default() -> Options {
        let fars = [1e-1, 1e-2, 1e-3].map(|far| Far::new(far).expect("between 0 and 1"));
        Options {
            fars: fars.to_vec(),
            bootstrap: Bootstrap { n_replicates: 0, ..Bootstrap::default() },
            pca: None,
        }
    }
}

/// The figures, and the score of each pair behind them.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The figures.
    pub report: VerificationReport,
    /// `[P]` squared L2 distance of the pair's unit embeddings, in `[0, 4]`.
    pub distances: Vec<f64>,
    /// The pairs by rising distance; their scores are negated distances.
    pub ranking: Ranking,
}

impl Judged {
    /// `[P]` cosine similarity of each pair, in `[-1, 1]`.
    pub fn similarities(&self) -> Vec<f64> {
        self.distances.iter().map(|&distance| similarity(distance)).collect()
    }

    /// The ROC curve over cosine similarity; empty unless both classes are present.
    pub fn roc(&self) -> Vec<RocPoint> {
        let mut points = self.ranking.roc().unwrap_or_default();
        points.iter_mut().for_each(|point| point.threshold = similarity(-point.threshold));
        points
    }
}

/// The cosine of two unit vectors from their squared distance: |a − b|² = 2 − 2·cos.
fn similarity(distance: f64) -> f64 {
    1.0 - distance / 2.0
}

impl PairsSet {
    /// Judges the pairs by the embeddings of all images, in order.
    ///
    /// # Errors
    ///
    /// [`VerifyError::EmbeddingSize`] unless there is one embedding per image,
    /// [`VerifyError::NoFolds`] for a PCA of a single list, [`VerifyError::Unusable`] for an embedding that
    /// is zero, and [`VerifyError::Metric`] for broken embeddings or a set too small for its protocol.
    pub fn judge(
        &self,
        embeddings: &MirroredEmbeddings,
        options: &Options,
    ) -> Result<Judged, VerifyError> {
        let dim = self.embedding_dim(embeddings)?;
        let unit = fuse_mirrored(&embeddings.original, &embeddings.mirrored, dim)?;
        self.check_directions(&unit, dim)?;
        let row = |image: u32| &unit[image as usize * dim..][..dim];
        let distances: Vec<f64> =
            self.pairs.iter().map(|p| squared_distance(row(p.left), row(p.right))).collect();
        let same: Vec<bool> = self.pairs.iter().map(|pair| pair.same).collect();
        // Not similarities: near 1 they are too coarse to tell the pairs of a weak model apart.
        let scores: Vec<f64> = distances.iter().map(|distance| -distance).collect();
        let ranking = Ranking::new(&scores, &same)?;
        let reduced = match options.pca {
            Some(components) => Some(self.reduced(&unit, dim, &same, components)?),
            None => None,
        };
        let spread = self.spread(&distances, &same, &ranking, reduced.as_ref(), options);
        let (n_genuine, n_impostor) = ranking.counts();
        let report = VerificationReport {
            set: self.name.clone(),
            protocol: self.protocol,
            n_pairs: self.pairs.len() as u64,
            n_genuine,
            n_impostor,
            n_images: self.n_images() as u64,
            n_people: u64::from(self.n_people),
            people_from: self.people_from,
            accuracy: self.accuracy(&distances, &same, &ranking, spread.accuracy)?,
            pca: options.pca.zip(reduced.as_ref()).map(|(components, folds)| {
                let Accuracies { mean, std, .. } = folds.accuracies(None);
                ReducedAccuracy { components, mean, std, interval: spread.pca }
            }),
            val: self.val(&distances, &same, &ranking, spread.val)?,
            tar_at_far: tar_rows(&ranking, &options.fars, &spread.tars)?,
            auc: figure(ranking.auc(None), spread.auc)?,
            eer: figure(ranking.eer(None), spread.eer)?,
            mean_norm: self.mean_norm(embeddings, dim),
            replicates: spread.replicates,
        };
        Ok(Judged { report, distances, ranking })
    }

    /// Refuses embeddings without a direction: their cosine with another is no number, and their distance
    /// from one another the least that there is.
    fn check_directions(&self, unit: &[f64], dim: usize) -> Result<(), VerifyError> {
        match unit.chunks_exact(dim).position(|row| row.iter().all(|value| *value == 0.0)) {
            None => Ok(()),
            Some(image) => Err(VerifyError::Unusable {
                model: "the network".to_owned(),
                image: self.image_name(image).to_owned(),
                what: ZERO,
            }),
        }
    }

    fn embedding_dim(&self, embeddings: &MirroredEmbeddings) -> Result<usize, VerifyError> {
        let (n_values, n_images) = (embeddings.original.len(), self.n_images());
        if n_images == 0 || n_values == 0 || !n_values.is_multiple_of(n_images) {
            return Err(VerifyError::EmbeddingSize { n_values, n_images });
        }
        Ok(n_values / n_images)
    }

    fn accuracy(
        &self,
        distances: &[f64],
        same: &[bool],
        ranking: &Ranking,
        interval: Option<Interval>,
    ) -> Result<Accuracy, VerifyError> {
        if self.protocol == Protocol::SingleList {
            let best = ranking.best_accuracy(None)?;
            let (mean, threshold) = (best.accuracy, -best.threshold);
            return Ok(Accuracy { mean, std: None, interval, threshold, folds: Vec::new() });
        }
        let result = ten_fold(distances, same, None)?;
        let folds = result.folds.iter();
        let thresholds: f64 = folds.clone().map(|fold| fold.threshold).sum();
        Ok(Accuracy {
            mean: result.mean,
            std: Some(result.std),
            interval,
            threshold: thresholds / result.folds.len() as f64,
            folds: folds
                .map(|fold| FoldRow { accuracy: fold.accuracy, threshold: fold.threshold })
                .collect(),
        })
    }

    fn reduced<'a>(
        &self,
        unit: &[f64],
        dim: usize,
        same: &'a [bool],
        components: usize,
    ) -> Result<ReducedFolds<'a>, VerifyError> {
        if self.protocol == Protocol::SingleList {
            return Err(VerifyError::NoFolds { components });
        }
        let sides = self.pairs.iter().flat_map(|pair| [pair.left, pair.right]);
        let sides: Vec<f64> =
            sides.flat_map(|image| &unit[image as usize * dim..][..dim]).copied().collect();
        Ok(ReducedFolds::new(&sides, dim, same, components)?)
    }

    fn val(
        &self,
        distances: &[f64],
        same: &[bool],
        ranking: &Ranking,
        interval: Option<Interval>,
    ) -> Result<Option<ValRow>, VerifyError> {
        let (n_genuine, n_impostor) = ranking.counts();
        if self.protocol == Protocol::SingleList || n_genuine == 0 || n_impostor == 0 {
            return Ok(None);
        }
        let result = val_at_far(distances, same, Far::new(VAL_FAR)?, None)?;
        let (val, std, far) = (result.mean, result.std, result.far);
        Ok(Some(ValRow { far_target: VAL_FAR, val, std, interval, far }))
    }

    fn mean_norm(&self, embeddings: &MirroredEmbeddings, dim: usize) -> f64 {
        let both = embeddings.original.chunks_exact(dim).zip(embeddings.mirrored.chunks_exact(dim));
        let norms: Vec<f64> = both.map(|(a, b)| (norm(a) + norm(b)) / 2.0).collect();
        let sides = self.pairs.iter().flat_map(|pair| [pair.left, pair.right]);
        let sum: f64 = sides.map(|image| norms[image as usize]).sum();
        sum / (2 * self.pairs.len()).max(1) as f64
    }

    /// The confidence intervals of all figures, from the same resampled people.
    fn spread(
        &self,
        distances: &[f64],
        same: &[bool],
        ranking: &Ranking,
        reduced: Option<&ReducedFolds>,
        options: &Options,
    ) -> Spread {
        let person = |image: u32| self.people[image as usize];
        let people: Vec<People> =
            self.pairs.iter().map(|pair| (person(pair.left), person(pair.right))).collect();
        let figures = |weights: &[u64]| {
            let weights = Some(weights);
            let accuracy = match self.protocol {
                Protocol::TenFold => ten_fold(distances, same, weights).map(|all| all.mean),
                Protocol::SingleList => ranking.best_accuracy(weights).map(|best| best.accuracy),
            };
            let val = Far::new(VAL_FAR)
                .and_then(|far| val_at_far(distances, same, far, weights))
                .map(|all| all.mean);
            let pca = reduced.map_or(f64::NAN, |folds| folds.accuracies(weights).mean);
            let tars = options.fars.iter().map(|&far| ranking.tar_at_far(far, weights));
            let tars = tars.map(|tar| tar.map(|tar| tar.tar));
            std::iter::once(accuracy)
                .chain(tars)
                .chain([ranking.auc(weights), ranking.eer(weights), val, Ok(pca)])
                .map(|figure| figure.unwrap_or(f64::NAN))
                .collect()
        };
        let bootstrap = &options.bootstrap;
        let sets = replicates(bootstrap, self.n_people, &people, figures, &|| false);
        let mut found = intervals_of(&sets, bootstrap.confidence).into_iter();
        let mut next = || found.next().flatten();
        let accuracy = next();
        let tars: Vec<Option<Interval>> = options.fars.iter().map(|_| next()).collect();
        let (auc, eer, val, pca) = (next(), next(), next(), next());
        let n_kept = 1 + tars.len();
        let replicates = (!sets.is_empty()).then(|| Replicates::new(bootstrap.seed, &sets, n_kept));
        Spread { accuracy, auc, eer, val, pca, tars, replicates }
    }
}

struct Spread {
    accuracy: Option<Interval>,
    auc: Option<Interval>,
    eer: Option<Interval>,
    val: Option<Interval>,
    pca: Option<Interval>,
    tars: Vec<Option<Interval>>,
    replicates: Option<Replicates>,
}

/// A figure, or nothing where the set has one class only.
fn figure(
    value: Result<f64, MetricError>,
    interval: Option<Interval>,
) -> Result<Option<Figure>, VerifyError> {
    match value {
        Ok(value) => Ok(Some(Figure { value, interval })),
        Err(MetricError::OneClass { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn tar_rows(
    ranking: &Ranking,
    fars: &[Far],
    intervals: &[Option<Interval>],
) -> Result<Vec<TarRow>, VerifyError> {
    let (_, n_impostors) = ranking.counts();
    let row = |(&far, &interval): (&Far, &Option<Interval>)| {
        let unmeasured = TarRow {
            far: far.get(),
            tar: None,
            threshold: None,
            n_impostors_allowed: far.allowed(n_impostors),
            interval: None,
        };
        match ranking.tar_at_far(far, None) {
            Ok(found) => Ok(TarRow {
                tar: Some(found.tar),
                threshold: Some(similarity(-found.threshold)),
                interval,
                ..unmeasured
            }),
            Err(MetricError::TooFewImpostors { .. } | MetricError::OneClass { .. }) => {
                Ok(unmeasured)
            }
            Err(error) => Err(error.into()),
        }
    };
    fars.iter().zip(intervals).map(row).collect()
}
