//! The segments of a JPEG, one after another.

pub const START_OF_IMAGE: &[u8] = b"\xff\xd8";
pub const START_OF_SCAN: u8 = 0xda;

/// The segments from a place in a JPEG to the next scan, ending where they stop being whole.
pub struct Segments<'a> {
    bytes: &'a [u8],
    /// Where the next segment is looked for; after the header of a scan, where its data begin.
    pub at: usize,
    /// Whether bytes lay between the segments so far that belong to none.
    pub has_strays: bool,
    ended: bool,
}

/// A segment with a payload.
pub struct Segment<'a> {
    pub marker: u8,
    pub payload: &'a [u8],
}

impl<'a> Segments<'a> {
    /// The segments after the start of the image; nothing if it does not start as one.
    pub fn of(bytes: &'a [u8]) -> Option<Segments<'a>> {
        let is_jpeg = bytes.starts_with(START_OF_IMAGE);
        is_jpeg.then(|| Segments::from(bytes, START_OF_IMAGE.len()))
    }

    /// The segments from `at` on.
    pub fn from(bytes: &'a [u8], at: usize) -> Segments<'a> {
        Segments { bytes, at, has_strays: false, ended: false }
    }

    /// The next marker, past stray bytes before it and fill bytes within it.
    fn marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let before = rest.iter().take_while(|&&b| b != 0xff).count();
            let fill = rest.get(before..)?.iter().take_while(|&&b| b == 0xff).count();
            let marker = *rest.get(before + fill)?;
            self.at += before + fill + 1;
            // A zero makes the 0xff a coded byte, which is stray here as well; markers of restarts
            // have no place and no length either.
            let is_stray = matches!(marker, 0 | 0x01 | 0xd0..=0xd7);
            self.has_strays |= before > 0 || is_stray;
            if !is_stray {
                return Some(marker);
            }
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        if self.ended {
            return None;
        }
        let marker = self.marker()?;
        self.ended = matches!(marker, START_OF_SCAN | 0xd8 | 0xd9);
        if self.ended && marker != START_OF_SCAN {
            return None;
        }
        let tail = self.bytes.get(self.at..)?;
        // The length counts its own two bytes.
        let length = usize::from(u16::from_be_bytes(*tail.first_chunk::<2>()?));
        let payload = tail.get(2..length)?;
        self.at += length;
        Some(Segment { marker, payload })
    }
}

/// SOF0 to SOF15, but for the tables that share their range (DHT, JPG, DAC).
pub fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}
