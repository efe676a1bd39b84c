//! Numbers on the command line: every option that takes a real number says which ones it takes.
//!
//! What Rust parses as a float includes `nan` and `inf`, of which no comparison and no figure is right.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

/// A real number that an option may take: `f32` or `f64`.
pub trait Real: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;

    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;

    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;

    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

/// A parser for numbers of `bounds`, both of which are taken; for `value_parser`.
///
/// ```
/// let cosine = pfc_cli::number::within(-1.0..=1.0f32);
/// assert_eq!(cosine("0.3"), Ok(0.3));
/// assert_eq!(cosine("nan"), Err("give a number from -1 to 1".to_owned()));
/// ```
pub fn within<T: Real>(
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    let (least, most) = (*bounds.start(), *bounds.end());
    move |text| {
        let fits = |number: &T| (least..=most).contains(number);
        finite(text).ok().filter(fits).ok_or(format!("give a number from {least} to {most}"))
    }
}

/// Parses a number above 0.
///
/// # Errors
///
/// What is taken.
pub fn positive<T: Real>(text: &str) -> Result<T, String> {
    let number = finite(text).ok().filter(|number| *number > T::ZERO);
    number.ok_or("give a number above 0".to_owned())
}

/// Parses a number of 0 or more.
///
/// # Errors
///
/// What is taken.
pub fn not_negative<T: Real>(text: &str) -> Result<T, String> {
    let number = finite(text).ok().filter(|number| *number >= T::ZERO);
    number.ok_or("give a number of 0 or more".to_owned())
}

/// Parses any number but NaN and infinity.
///
/// # Errors
///
/// What is taken.
pub fn finite<T: Real>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number: &T| number.is_finite());
    number.ok_or("give a number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_parser_takes_what_is_no_number_or_has_no_end() {
        for text in ["nan", "NaN", "-nan", "inf", "-inf", "infinity", "1e999", "", "x", "1,5"] {
            assert!(finite::<f32>(text).is_err(), "{text}");
            assert!(positive::<f64>(text).is_err(), "{text}");
            assert!(not_negative::<f32>(text).is_err(), "{text}");
            assert!(within(-1e30..=1e30f32)(text).is_err(), "{text}");
        }
        // Fits f64 alone.
        assert!(finite::<f32>("1e39").is_err() && finite::<f64>("1e39").is_ok());
    }

    #[test]
    fn bounds_are_taken_and_what_lies_beyond_is_not() {
        assert_eq!(positive("1e-30"), Ok(1e-30f64));
        assert!(positive::<f32>("0").is_err() && positive::<f32>("-1").is_err());
        assert_eq!(not_negative("0"), Ok(0.0f32));
        assert!(not_negative::<f32>("-0.5").is_err());
        let share = within(0.0..=1.0f64);
        assert_eq!((share("0"), share("1")), (Ok(0.0), Ok(1.0)));
        assert_eq!(share("1.5"), Err("give a number from 0 to 1".to_owned()));
    }
}
