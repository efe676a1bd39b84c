//! What a network wants of its images.

use std::{fmt, str::FromStr};

/// Side of the aligned faces that everything starts from.
pub const FACE_SIDE: usize = 112;
/// Bytes of one: rows from the top, pixels from the left, red first.
pub const FACE_BYTES: usize = FACE_SIDE * FACE_SIDE * 3;

/// Order of the colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as `OpenCV` has it.
    Bgr,
    /// One channel: 0.299 red + 0.587 green + 0.114 blue. Networks that take it say so by their shape.
    Grey,
}

impl ChannelOrder {
    /// Channels of an image: 3, or 1.
    pub fn n_channels(self) -> usize {
        if self == ChannelOrder::Grey { 1 } else { 3 }
    }
}

impl fmt::Display for ChannelOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
            ChannelOrder::Grey => "grey",
        })
    }
}

impl FromStr for ChannelOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<ChannelOrder, String> {
        match text.to_ascii_lowercase().as_str() {
            "rgb" => Ok(ChannelOrder::Rgb),
            "bgr" => Ok(ChannelOrder::Bgr),
            _ => Err("give rgb or bgr".to_owned()),
        }
    }
}

/// Where the channels lie among the axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[N, C, H, W]`.
    Planes,
    /// `[N, H, W, C]`.
    Pixels,
}

/// How it is known what the pixels are to be divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user says so.
    Stated,
    /// The file's metadata say so.
    Metadata,
    /// The network begins by normalising, or takes bytes.
    Graph,
    /// The statistics that the network keeps of its training set fit no other way.
    Measured,
    /// Nothing is said: as `InsightFace` trains.
    Convention,
}

/// What the user says about the input; what is left out is recognised.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InputOptions {
    /// Height and width.
    pub size: Option<[usize; 2]>,
    /// Order of the colours.
    pub channels: Option<ChannelOrder>,
    /// Subtracted from pixels of 0 to 255, per channel in the network's order.
    pub mean: Option<[f32; 3]>,
    /// The difference is divided by this.
    pub std: Option<[f32; 3]>,
}

/// What a network wants: value = (pixel − mean) / std.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputSpec {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Order of the colours.
    pub channels: ChannelOrder,
    /// Where the channels lie.
    pub layout: Layout,
    /// Per channel, in the network's order.
    pub mean: [f32; 3],
    /// Per channel, in the network's order.
    pub std: [f32; 3],
    /// How mean and std are known.
    pub origin: Origin,
}

impl InputSpec {
    /// What `InsightFace`'s backbones are trained with: 112×112 RGB, (x − 127.5) / 127.5.
    pub fn insightface() -> InputSpec {
        InputSpec {
            height: 112,
            width: 112,
            channels: ChannelOrder::Rgb,
            layout: Layout::Planes,
            mean: [127.5; 3],
            std: [127.5; 3],
            origin: Origin::Convention,
        }
    }

    /// The same with what the user states.
    #[must_use]
    pub fn with(self, options: &InputOptions) -> InputSpec {
        let [height, width] = options.size.unwrap_or([self.height, self.width]);
        let stated = options.mean.is_some() || options.std.is_some();
        InputSpec {
            height,
            width,
            channels: options.channels.unwrap_or(self.channels),
            mean: options.mean.unwrap_or(self.mean),
            std: options.std.unwrap_or(self.std),
            origin: if stated { Origin::Stated } else { self.origin },
            ..self
        }
    }

    /// What becomes of a pixel, for people.
    pub fn formula(&self) -> String {
        let number = |values: [f32; 3]| match values {
            [a, b, c] if a == b && b == c => a.to_string(),
            [a, b, c] => format!("[{a}, {b}, {c}]"),
        };
        match (self.mean, self.std) {
            (mean, std) if mean == [0.0; 3] && std == [1.0; 3] => "pixels of 0 to 255".to_owned(),
            (mean, std) if mean == [0.0; 3] => format!("x / {}", number(std)),
            (mean, std) if std == [1.0; 3] => format!("x − {}", number(mean)),
            (mean, std) => format!("(x − {}) / {}", number(mean), number(std)),
        }
    }

    /// Values of one image.
    pub fn n_values(&self) -> usize {
        self.channels.n_channels() * self.height * self.width
    }
}

/// Reads one number, or three separated by commas or spaces.
///
/// # Errors
///
/// What is wrong with the text.
pub(crate) fn numbers(text: &str) -> Result<[f32; 3], String> {
    let split = text.split([',', ' ']).filter(|part| !part.is_empty());
    let numbers: Option<Vec<f32>> =
        split.map(|part| part.parse().ok().filter(|x: &f32| x.is_finite())).collect();
    match numbers.as_deref() {
        Some([one]) => Ok([*one; 3]),
        Some(&[a, b, c]) => Ok([a, b, c]),
        _ => Err("give one number, or three separated by commas".to_owned()),
    }
}

impl InputOptions {
    /// Reads `127.5` or `123.7,116.3,103.5`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse_mean(text: &str) -> Result<[f32; 3], String> {
        numbers(text)
    }

    /// As [`parse_mean`](InputOptions::parse_mean), for what is divided by.
    ///
    /// # Errors
    ///
    /// What is wrong with the text; a number of 0 or less is.
    pub fn parse_std(text: &str) -> Result<[f32; 3], String> {
        let numbers = numbers(text)?;
        if numbers.iter().any(|number| *number <= 0.0) {
            Err("give numbers above 0, which pixels are divided by".to_owned())
        } else {
            Ok(numbers)
        }
    }

    /// Reads `112` or `128x96`, height first.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse_size(text: &str) -> Result<[usize; 2], String> {
        let (height, width) = text.split_once('x').unwrap_or((text, text));
        let side = |text: &str| text.parse().ok().filter(|side| (1..=SIDE_MAX).contains(side));
        match (side(height), side(width)) {
            (Some(height), Some(width)) => Ok([height, width]),
            _ => Err(format!("give a side such as 112, or 128x96, up to {SIDE_MAX}")),
        }
    }
}

/// No embedding network takes larger faces; a file that claims so would claim memory.
pub(crate) const SIDE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stated_wins() {
        let options =
            InputOptions { size: Some([128, 96]), mean: Some([0.0; 3]), ..InputOptions::default() };
        let spec = InputSpec::insightface().with(&options);
        assert_eq!((spec.height, spec.width, spec.mean[0], spec.std[0]), (128, 96, 0.0, 127.5));
        assert_eq!(spec.origin, Origin::Stated);
    }

    #[test]
    fn flags_are_read_or_refused() {
        assert_eq!(InputOptions::parse_mean("1,2 3"), Ok([1.0, 2.0, 3.0]));
        assert!(
            InputOptions::parse_mean("1,2").is_err() && InputOptions::parse_mean("nan").is_err()
        );
        for text in ["0", "-1", "nan", "inf", "1,-1,1"] {
            assert!(InputOptions::parse_std(text).is_err(), "{text}");
        }
        assert_eq!(InputOptions::parse_size("112"), Ok([112, 112]));
        assert_eq!(InputOptions::parse_size("128x96"), Ok([128, 96]));
        assert!(
            InputOptions::parse_size("99999").is_err() && InputOptions::parse_size("x").is_err()
        );
    }
}
