//! The `property` file: how many classes, how large the images.

use std::{fmt, path::Path};

use crate::{RecordError, error::excerpt};

/// What InsightFace's older trainers read from `property`; its newest ones do without the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property {
    /// Classes: one more than the largest label.
    pub n_classes: u64,
    /// Height of the images in pixels.
    pub height: u32,
    /// Width of the images in pixels.
    pub width: u32,
}

impl Property {
    /// Reads the first line, `classes,height,width`; lines that some writers add are not looked at.
    ///
    /// `path` is for the message.
    ///
    /// # Errors
    ///
    /// [`RecordError::PropertySyntax`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Property, RecordError> {
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        std::str::from_utf8(line).ok().and_then(parse).ok_or_else(|| RecordError::PropertySyntax {
            path: path.to_path_buf(),
            found: excerpt(line),
        })
    }
}

fn parse(line: &str) -> Option<Property> {
    let mut fields = line.split(',').map(str::trim);
    let n_classes = fields.next()?.parse().ok()?;
    let (height, width) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(Property { n_classes, height, width })
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Property { n_classes, height, width } = self;
        writeln!(f, "{n_classes},{height},{width}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        let property = Property { n_classes: 93_431, height: 112, width: 96 };
        for text in ["93431,112,96", "93431, 112, 96\r\n5179510\nshuffled\n"] {
            assert_eq!(Property::parse("p".as_ref(), text.as_bytes()).unwrap(), property);
        }
        assert_eq!(property.to_string(), "93431,112,96\n");
    }

    #[test]
    fn anything_else_is_shown() {
        for text in ["", "1,112", "1,112,112,3", "a,b,c", "-1,112,112", "1,112,4294967296", "\u{0}"]
        {
            let error = Property::parse("p".as_ref(), text.as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with("p: expected a first line `classes,height,width`"),
                "{error}"
            );
        }
        assert!(Property::parse("p".as_ref(), b"\xff,1,1").is_err());
    }
}
