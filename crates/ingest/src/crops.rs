//! How crops are written, by every command that cuts faces out of pictures into files.

use std::str::FromStr;

use pfc_image::{ImageError, ImageSize, Limits, Pixels, encode_jpeg, encode_png};

/// The options of these commands.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct CropArgs {
    /// Width and height of the crops in pixels, as in 112, 224 or 96x112
    #[arg(long, value_name = "SIZE", default_value = "112")]
    size: Size,
    /// File format of the crops, which are called as their images
    #[arg(long, value_enum, default_value_t)]
    format: CropFormat,
    /// Quality of JPEG crops; 100 is best
    #[arg(long, value_name = "1-100", default_value_t = 95,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Pixels of the largest image to decode; larger ones are left out
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    max_pixels: u64,
}

/// File format of crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CropFormat {
    /// JPEG, lossy.
    #[default]
    Jpg,
    /// PNG, lossless.
    Png,
}

/// The `--size` option.
#[derive(Debug, Clone, Copy)]
struct Size(ImageSize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        let side = |text: &str| text.parse().ok().filter(|n| (8..=1024).contains(n));
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Size(ImageSize { width, height })),
            _ => Err("a size is N or WxH, each from 8 to 1024".into()),
        }
    }
}

/// How crops become bytes.
#[derive(Debug, Clone, Copy)]
pub struct Encoding {
    pub format: CropFormat,
    quality: u8,
}

impl Encoding {
    /// The bytes of a crop.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if it has more pixels than the format holds.
    pub fn encode(self, pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
        match self.format {
            CropFormat::Jpg => encode_jpeg(pixels, self.quality),
            CropFormat::Png => encode_png(pixels),
        }
    }
}

impl CropArgs {
    /// Size of the crops.
    pub fn size(self) -> ImageSize {
        self.size.0
    }

    /// What pictures are decoded.
    pub fn limits(self) -> Limits {
        Limits { pixels_max: self.max_pixels }
    }

    /// How the crops become bytes.
    pub fn encoding(self) -> Encoding {
        Encoding { format: self.format, quality: self.quality }
    }

    /// The options that decide the content, all of which do.
    pub fn content_arguments(self) -> [String; 4] {
        let ImageSize { width, height } = self.size();
        [
            format!("--size={width}x{height}"),
            format!("--format={:?}", self.format).to_lowercase(),
            format!("--quality={}", self.quality),
            format!("--max-pixels={}", self.max_pixels),
        ]
    }
}
