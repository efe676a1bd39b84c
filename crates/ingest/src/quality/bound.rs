//! What measures of faces must be, as it is stated on the command line.

use std::{fmt, str::FromStr};

/// A measure, and the values between which it has to lie; both ends are allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityBound {
    /// The column.
    pub column: String,
    /// No lower value is allowed.
    pub least: f32,
    /// No higher value is allowed.
    pub most: f32,
}

impl QualityBound {
    /// The end that `value` lies beyond; nothing if it is allowed, or NaN.
    pub fn broken_by(&self, value: f32) -> Option<f32> {
        if value < self.least {
            Some(self.least)
        } else if value > self.most {
            Some(self.most)
        } else {
            None
        }
    }
}

impl FromStr for QualityBound {
    type Err = String;

    fn from_str(text: &str) -> Result<QualityBound, String> {
        const FORM: &str = "a bound is COLUMN=LEAST..MOST, as in sharpness=20.. or yaw=-60..60";
        let parts =
            text.split_once('=').and_then(|(column, ends)| Some((column, ends.split_once("..")?)));
        let (column, (least, most)) = parts.ok_or(FORM)?;
        let end = |text: &str, open: f32| match text.trim() {
            "" => Ok(open),
            text => text.parse().ok().filter(|v: &f32| v.is_finite()).ok_or(FORM),
        };
        let (least, most) = (end(least, f32::NEG_INFINITY)?, end(most, f32::INFINITY)?);
        let column = column.trim().to_owned();
        if column.is_empty() || (least.is_infinite() && most.is_infinite()) {
            return Err(FORM.to_owned());
        }
        if least > most {
            return Err(format!("no value lies between {least} and {most}"));
        }
        Ok(QualityBound { column, least, most })
    }
}

impl fmt::Display for QualityBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |value: f32| if value.is_finite() { value.to_string() } else { String::new() };
        write!(f, "{}={}..{}", self.column, end(self.least), end(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_printed_and_kept() {
        let bound: QualityBound = "yaw=-60..45.5".parse().unwrap();
        assert_eq!((bound.least, bound.most), (-60.0, 45.5));
        assert_eq!(bound.to_string().parse(), Ok(bound.clone()));
        let broken = [-60.1, -60.0, 0.0, 45.5, 46.0, f32::NAN].map(|value| bound.broken_by(value));
        assert_eq!(broken, [Some(-60.0), None, None, None, Some(45.5), None]);
        let open: QualityBound = "sharpness=20..".parse().unwrap();
        assert_eq!((open.broken_by(1e30), open.broken_by(19.0)), (None, Some(20.0)));
        assert_eq!(open.to_string(), "sharpness=20..");
        for bad in ["yaw", "yaw=3", "yaw=..", "=1..2", "yaw=2..1", "yaw=a..", "yaw=nan..3"] {
            assert!(bad.parse::<QualityBound>().is_err(), "{bad}");
        }
    }
}
