//! How the measures of the crops are spread over a data set.

use pfc_findings::View;
use pfc_shard::{Face, ShardError};
use rayon::prelude::*;
use serde::Serialize;

/// The spread of every measure.
#[derive(Debug, Serialize)]
pub struct Measures {
    /// Bytes of the encoded image.
    pub bytes: Option<Quantiles>,
    /// Variance of the Laplacian of the luma; this and the next two are `None` if they were not measured.
    pub sharpness: Option<Quantiles>,
    /// Mean luma, 0 to 255.
    pub brightness: Option<Quantiles>,
    /// Standard deviation of the luma.
    pub contrast: Option<Quantiles>,
}

/// Where the values of one measure lie.
#[derive(Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub least: f32,
    /// A value in twenty is below.
    pub p05: f32,
    pub median: f32,
    /// A value in twenty is above.
    pub p95: f32,
    pub most: f32,
    pub mean: f64,
}

impl Measures {
    /// Reads all columns but the images, in parallel. Memory: 4 bytes a row.
    ///
    /// # Errors
    ///
    /// [`ShardError`] of the first row that cannot be read.
    pub fn of(view: &View) -> Result<Measures, ShardError> {
        view.dataset().preload()?;
        let spread = |value: fn(&Face<'_>) -> f32| -> Result<Option<Quantiles>, ShardError> {
            let places = (0..view.len()).into_par_iter();
            let values = places.map(|place| view.get(place).map(|face| value(&face)));
            Ok(Quantiles::of(values.collect::<Result<_, _>>()?))
        };
        Ok(Measures {
            bytes: spread(|face| face.image.len() as f32)?,
            sharpness: spread(|face| face.quality.sharpness)?,
            brightness: spread(|face| face.quality.brightness)?,
            contrast: spread(|face| face.quality.contrast)?,
        })
    }

    /// Names and spreads, to be printed.
    pub fn rows(&self) -> [(&'static str, &Option<Quantiles>); 4] {
        [
            ("bytes", &self.bytes),
            ("sharpness", &self.sharpness),
            ("brightness", &self.brightness),
            ("contrast", &self.contrast),
        ]
    }
}

impl Quantiles {
    /// Computed by nearest rank from the values that are numbers; `None` if there are none.
    pub fn of(mut values: Vec<f32>) -> Option<Quantiles> {
        values.retain(|value| !value.is_nan());
        let last = values.len().checked_sub(1)?;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        values.par_sort_unstable_by(f32::total_cmp);
        let at = |share: f64| values[(share * last as f64).round() as usize];
        Some(Quantiles {
            least: at(0.0),
            p05: at(0.05),
            median: at(0.5),
            p95: at(0.95),
            most: at(1.0),
            mean,
        })
    }

    /// Least, 5 %, median, 95 %, most and mean as text of about four digits.
    pub fn columns(&self) -> [String; 6] {
        let Quantiles { least, p05, median, p95, most, mean } = self;
        let decimals = match f64::from(*most).abs() {
            most if most >= 1000.0 => 0,
            most if most >= 100.0 => 1,
            most if most >= 1.0 => 2,
            _ => 4,
        };
        let text = |value: f64| format!("{value:.decimals$}");
        let [least, p05, median, p95, most] =
            [least, p05, median, p95, most].map(|v| f64::from(*v));
        [least, p05, median, p95, most, *mean].map(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_of_0_to_100_are_their_own_percentages() {
        let quantiles = Quantiles::of((0..=100).rev().map(|v| v as f32).collect());
        let expected =
            Quantiles { least: 0.0, p05: 5.0, median: 50.0, p95: 95.0, most: 100.0, mean: 50.0 };
        assert_eq!(quantiles.as_ref(), Some(&expected));
        assert_eq!(expected.columns()[1], "5.0");
    }

    #[test]
    fn what_was_not_measured_has_no_spread() {
        assert_eq!(Quantiles::of(vec![f32::NAN; 2]), None);
        assert_eq!(Quantiles::of(vec![f32::NAN, 3.0]).unwrap().mean, 3.0);
    }
}
