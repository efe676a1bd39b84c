//! Scalars, texts and histograms in TensorBoard's event files: `TFRecord` framing around hand-encoded messages.
//!
//! A record is the length (u64), the masked CRC-32C of those eight bytes, the payload and the masked
//! CRC-32C of the payload, all little-endian. The payload is an `Event` message:
//! `wall_time = 1` (double), `step = 2` (int64), then one of `file_version = 3` (string),
//! `summary = 5` and `session_log = 7`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// One event file, the one that a start of a run writes.
#[derive(Debug)]
pub struct EventFile {
    out: BufWriter<File>,
}

impl EventFile {
    /// Opens a new event file in `dir`, named so that TensorBoard finds it.
    ///
    /// A session-start event at `step` tells TensorBoard to forget what an earlier start of this run
    /// wrote of that step and later ones.
    ///
    /// # Errors
    ///
    /// The I/O error of making the folder or the file.
    pub fn create(dir: &Path, step: u64) -> io::Result<EventFile> {
        std::fs::create_dir_all(dir)?;
        let started = wall_time();
        // The process number keeps two starts within one second apart; ten digits sort by time.
        let name = format!("events.out.tfevents.{:010}.pfc.{}", started as u64, std::process::id());
        let mut file = EventFile { out: BufWriter::new(File::create(dir.join(name))?) };
        file.record(&version_event(started))?;
        file.record(&session_start_event(started, step))?;
        file.flush()?;
        Ok(file)
    }

    /// Appends `scalars`, (tag, value) each, as of `step`.
    ///
    /// # Errors
    ///
    /// The I/O error of the file.
    pub fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> io::Result<()> {
        self.record(&scalars_event(wall_time(), step, scalars))?;
        self.flush()
    }

    /// Appends how many values lie in each of the equal parts of a range, the lowest first, as of `step`.
    ///
    /// TensorBoard is also told the mean and the spread of the values, as if each lay in the middle of its part.
    ///
    /// # Errors
    ///
    /// The I/O error of the file.
    pub fn histogram(
        &mut self,
        step: u64,
        tag: &str,
        range: (f64, f64),
        counts: &[u32],
    ) -> io::Result<()> {
        self.record(&histogram_event(wall_time(), step, tag, range, counts))?;
        self.flush()
    }

    /// Appends a text, which TensorBoard shows as Markdown, as of `step`.
    ///
    /// # Errors
    ///
    /// The I/O error of the file.
    pub fn text(&mut self, step: u64, tag: &str, markdown: &str) -> io::Result<()> {
        self.record(&text_event(wall_time(), step, tag, markdown))?;
        self.flush()
    }

    fn record(&mut self, payload: &[u8]) -> io::Result<()> {
        self.out.write_all(&frame(payload))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(payload.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(payload);
    record.extend_from_slice(&masked_crc(payload).to_le_bytes());
    record
}

/// The mask of `TFRecord` keeps a checksum of data that itself holds checksums from being trivial.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.bytes(3, b"brain.Event:2");
    event.0
}

fn session_start_event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut session = Message::default();
    session.varint_field(1, 1);
    let mut event = Message::default();
    event.double(1, wall_time);
    event.varint_field(2, step);
    event.bytes(7, &session.0);
    event.0
}

fn scalars_event(wall_time: f64, step: u64, scalars: &[(String, f64)]) -> Vec<u8> {
    let values = scalars.iter().map(|(tag, value)| {
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes());
        entry.float(2, *value as f32);
        entry
    });
    event(wall_time, step, values)
}

/// A summary whose value is a tensor of one string (`dtype = 1`, `tensor_shape = 2`, `string_val = 8`), which
/// its metadata gives to the plugin `text`.
fn text_event(wall_time: f64, step: u64, tag: &str, markdown: &str) -> Vec<u8> {
    const DT_STRING: u64 = 7;
    let (mut dim, mut shape, mut tensor) =
        (Message::default(), Message::default(), Message::default());
    dim.varint_field(1, 1);
    shape.bytes(2, &dim.0);
    tensor.varint_field(1, DT_STRING);
    tensor.bytes(2, &shape.0);
    tensor.bytes(8, markdown.as_bytes());
    let (mut plugin, mut metadata) = (Message::default(), Message::default());
    plugin.bytes(1, b"text");
    metadata.bytes(1, &plugin.0);
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    value.bytes(8, &tensor.0);
    value.bytes(9, &metadata.0);
    event(wall_time, step, [value])
}

/// A summary whose value is a histogram (field 5): `min = 1`, `max = 2`, `num = 3`, `sum = 4`, `sum_squares = 5`,
/// and the upper ends of the parts and their counts as packed doubles, `bucket_limit = 6` and `bucket = 7`.
fn histogram_event(
    wall_time: f64,
    step: u64,
    tag: &str,
    (low, high): (f64, f64),
    counts: &[u32],
) -> Vec<u8> {
    let width = (high - low) / counts.len().max(1) as f64;
    let end = |i: usize| low + width * i as f64;
    let first = counts.iter().position(|n| *n > 0).unwrap_or(0);
    let last = counts.iter().rposition(|n| *n > 0).map_or(0, |i| i + 1);
    let sum_of = |of: &dyn Fn(f64) -> f64| -> f64 {
        let middles = counts.iter().enumerate().map(|(i, n)| (end(i) + width / 2.0, f64::from(*n)));
        middles.map(|(middle, n)| n * of(middle)).sum()
    };
    let packed = |values: &mut dyn Iterator<Item = f64>| -> Vec<u8> {
        values.flat_map(f64::to_le_bytes).collect()
    };
    let (mut histogram, mut value) = (Message::default(), Message::default());
    let told = [end(first), end(last), sum_of(&|_| 1.0), sum_of(&|x| x), sum_of(&|x| x * x)];
    (1..).zip(told).for_each(|(field, number)| histogram.double(field, number));
    histogram.bytes(6, &packed(&mut (first..last).map(|i| end(i + 1))));
    histogram.bytes(7, &packed(&mut counts[first..last].iter().map(|n| f64::from(*n))));
    value.bytes(1, tag.as_bytes());
    value.bytes(5, &histogram.0);
    event(wall_time, step, [value])
}

/// An event with a summary: `wall_time = 1`, `step = 2`, `summary = 5`, of which each `value = 1`.
fn event(wall_time: f64, step: u64, values: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let (mut summary, mut event) = (Message::default(), Message::default());
    values.into_iter().for_each(|value| summary.bytes(1, &value.0));
    event.double(1, wall_time);
    event.varint_field(2, step);
    event.bytes(5, &summary.0);
    event.0
}

/// A protocol-buffer message being encoded.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The check value of CRC-32C, masked on paper: 0xE3069283 turned right by 15 is 0x2507C60D.
    #[test]
    fn the_checksum_is_the_published_check_value_masked() {
        assert_eq!(masked_crc(b"123456789"), 0x2507_c60d_u32.wrapping_add(0xa282_ead8));
    }

    /// Bytes made by `RecordWriter` and `Event` of the tensorboard 2 Python package.
    #[test]
    fn records_equal_those_of_tensorboards_own_writer() {
        let scalars = [("train/loss".to_owned(), 13.25), ("lr".to_owned(), 0.5)];
        assert_eq!(
            hex(&frame(&scalars_event(1.5, 300, &scalars))),
            "2c00000000000000f4aecc4509000000000000f83f10ac022a1e0a110a0a747261696e2f6c6f7373\
             15000054410a090a026c72150000003ffa3739d0"
        );
        assert_eq!(
            hex(&frame(&version_event(1.5))),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
        );
        assert_eq!(
            hex(&frame(&session_start_event(1.5, 7))),
            "0f000000000000006d532b0909000000000000f83f10073a020801774771c7"
        );
    }

    /// Bytes made by `Event` of the tensorboard 2.21 Python package, from what PyTorch's `add_text` gives it.
    #[test]
    fn a_text_equals_that_of_tensorboards_own_writer() {
        assert_eq!(
            hex(&text_event(1.5, 300, "config", "    lr = 0.1\n")),
            "09000000000000f83f10ac022a2d0a2b0a06636f6e66696742170807120412020801420d202020206c7220\
             3d20302e310a4a080a060a0474657874"
        );
    }

    /// Bytes made by `Event` and `HistogramProto` of the tensorboard 2.21 Python package: one value in the part from
    /// -0.5 to 0 and three in that from 0 to 0.5.
    #[test]
    fn a_histogram_equals_that_of_tensorboards_own_writer() {
        assert_eq!(
            hex(&histogram_event(1.5, 300, "c", (-1.0, 1.0), &[0, 1, 3, 0])),
            "09000000000000f83f10ac022a580a560a01632a5109000000000000e0bf11000000000000e03f19000000\
             000000104021000000000000e03f29000000000000d03f32100000000000000000000000000000e03f3a10\
             000000000000f03f0000000000000840"
        );
    }

    /// Splits a file into payloads, checking every length and checksum.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let n = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(rest[..4], masked_crc(length).to_le_bytes());
            let payload = &rest[4..4 + n];
            assert_eq!(rest[4 + n..8 + n], masked_crc(payload).to_le_bytes());
            found.push(payload.to_vec());
            bytes = &rest[8 + n..];
        }
        found
    }

    fn only_file(dir: &Path) -> std::path::PathBuf {
        let mut files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    }

    #[test]
    fn a_file_starts_with_its_version_and_the_step_that_it_continues_from() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path(), 300).unwrap();
        file.scalars(301, &[("loss".to_owned(), 2.0)]).unwrap();
        let found = payloads(&std::fs::read(only_file(dir.path())).unwrap());
        assert_eq!(found.len(), 3);
        assert!(found[0].ends_with(b"brain.Event:2"));
        // Field 2, the varint of 300; field 7, two bytes; its field 1 is 1.
        assert!(found[1].ends_with(&[0x10, 0xac, 0x02, 0x3a, 0x02, 0x08, 0x01]));
        assert!(found[2].ends_with(&[b's', 0x15, 0x00, 0x00, 0x00, 0x40]));
    }
}
