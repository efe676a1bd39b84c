//! Whether a JPEG without an end marker lacks nothing but that.
//!
//! Decoders that are made to show something fill what is missing with grey, so they cannot tell. Here
//! the coded symbols are walked without computing a pixel: every block of every scan has to be there,
//! the last scan has to end with the file, and each coefficient has to have all its bits.

use super::segments::{START_OF_SCAN, Segments, is_frame_header};

/// Scans of one image at most, as for the decoder.
const SCANS_MAX: usize = 100;

/// Whether the scans of `bytes` are complete and end exactly where the bytes end.
pub fn is_complete(bytes: &[u8]) -> bool {
    // Zeros are codes, too, and an image may seem to end where they do. Encoders fill the last byte of a
    // scan up with ones.
    if bytes.ends_with(&[0, 0]) {
        return false;
    }
    let mut walk = Walk::default();
    let mut at = 2;
    for _ in 0..SCANS_MAX {
        let Some(after) = walk.next_scan(bytes, at) else { return false };
        at = after;
        // Nothing, or half of the end marker.
        if matches!(bytes.get(at..), Some([] | [0xff])) {
            return walk.has_everything();
        }
    }
    false
}

/// What is known of the image so far.
#[derive(Default)]
struct Walk {
    is_progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
    dc_tables: [Option<Table>; 4],
    ac_tables: [Option<Table>; 4],
    /// MCUs between two restart markers; 0 is none.
    restart: usize,
}

#[derive(Default)]
struct Component {
    id: u8,
    /// Blocks of an MCU, across and down.
    h: usize,
    v: usize,
    /// Blocks of a row, filled up to whole MCUs.
    stride: usize,
    dc_table: usize,
    ac_table: usize,
    /// Of each coefficient, how many of its lowest bits are still missing; `None` before its first
    /// scan.
    missing: Vec<Option<u8>>,
    /// Of each block, which coefficients are not zero: corrections are coded for these alone.
    nonzero: Vec<u64>,
}

/// A scan's part of the coefficients and of their bits.
#[derive(Clone, Copy)]
struct Band {
    start: u8,
    end: u8,
    is_first: bool,
    low: u8,
}

impl Walk {
    /// Reads the segments from `at` on and the scan behind them; returns where that ends.
    fn next_scan(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let mut segments = Segments::from(bytes, at);
        while let Some(segment) = segments.next() {
            match segment.marker {
                START_OF_SCAN => return self.scan(segment.payload, bytes, segments.at),
                0xc4 => self.tables(segment.payload)?,
                0xdd => {
                    let &[high, low] = segment.payload else { return None };
                    self.restart = u16::from_be_bytes([high, low]).into();
                }
                marker if is_frame_header(marker) => self.frame(marker, segment.payload)?,
                _ => {}
            }
        }
        None
    }

    fn frame(&mut self, marker: u8, payload: &[u8]) -> Option<()> {
        // Baseline, extended and progressive with Huffman codes; the decoder reads no others.
        if !matches!(marker, 0xc0..=0xc2) || !self.components.is_empty() {
            return None;
        }
        let &[8, h1, h0, w1, w0, n, ref rest @ ..] = payload else { return None };
        self.is_progressive = marker == 0xc2;
        self.width = u16::from_be_bytes([w1, w0]).into();
        self.height = u16::from_be_bytes([h1, h0]).into();
        let (parts, _) = rest.as_chunks::<3>();
        if !(1..=4).contains(&n) || parts.len() != usize::from(n) {
            return None;
        }
        for &[id, sampling, _] in parts {
            let (h, v) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return None;
            }
            self.components.push(Component { id, h, v, ..Component::default() });
        }
        let (across, down) = self.mcus()?;
        for component in &mut self.components {
            component.stride = across * component.h;
            component.missing = vec![None; 64];
            if self.is_progressive {
                let n_blocks = component.stride * down * component.v;
                component.nonzero.try_reserve_exact(n_blocks).ok()?;
                component.nonzero.resize(n_blocks, 0);
            }
        }
        Some(())
    }

    /// MCUs of an interleaved scan, across and down.
    fn mcus(&self) -> Option<(usize, usize)> {
        let h_max = self.components.iter().map(|c| c.h).max()?;
        let v_max = self.components.iter().map(|c| c.v).max()?;
        Some((self.width.div_ceil(8 * h_max), self.height.div_ceil(8 * v_max)))
    }

    fn tables(&mut self, mut payload: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = payload.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let n_values: usize = counts.iter().map(|&n| usize::from(n)).sum();
            let (values, rest) = rest.split_at_checked(n_values)?;
            let tables = if kind >> 4 == 0 { &mut self.dc_tables } else { &mut self.ac_tables };
            *tables.get_mut(usize::from(kind & 15))? = Some(Table::new(counts, values));
            payload = rest;
        }
        Some(())
    }

    /// Walks the scan whose coded bytes begin at `at`.
    fn scan(&mut self, header: &[u8], bytes: &[u8], at: usize) -> Option<usize> {
        let (&n, rest) = header.split_first()?;
        let (selectors, rest) = rest.split_at_checked(usize::from(n) * 2)?;
        let &[start, end, approximation] = rest else { return None };
        let mut parts = Vec::new();
        for &[id, tables] in selectors.as_chunks::<2>().0 {
            let index = self.components.iter().position(|c| c.id == id)?;
            self.components[index].dc_table = usize::from(tables >> 4);
            self.components[index].ac_table = usize::from(tables & 15);
            parts.push(index);
        }
        let band = match self.is_progressive {
            true => Band { start, end, is_first: approximation >> 4 == 0, low: approximation & 15 },
            false => Band { start: 0, end: 63, is_first: true, low: 0 },
        };
        let is_band = start <= end && end <= 63 && (start > 0 || end == 0);
        if self.is_progressive && !(is_band && (start == 0 || parts.len() == 1)) {
            return None;
        }
        for &part in &parts {
            let missing = &mut self.components[part].missing;
            missing.get_mut(usize::from(band.start)..=usize::from(band.end))?.fill(Some(band.low));
        }
        let mut coder = Coder { bits: Bits { bytes, at, byte: 0, left: 0 }, band, run: 0 };
        self.blocks(&parts, &mut coder)?;
        Some(coder.bits.at)
    }

    fn blocks(&mut self, parts: &[usize], coder: &mut Coder<'_>) -> Option<()> {
        let (across, down) = match parts {
            // A scan of one component has blocks for its own size alone.
            &[only] => {
                let (mcus_across, mcus_down) = self.mcus()?;
                let component = &self.components[only];
                let h_max = self.components.iter().map(|c| c.h).max()?;
                let v_max = self.components.iter().map(|c| c.v).max()?;
                let across = (self.width * component.h).div_ceil(8 * h_max);
                let down = (self.height * component.v).div_ceil(8 * v_max);
                (across.min(mcus_across * component.h), down.min(mcus_down * component.v))
            }
            [] => return None,
            _ => self.mcus()?,
        };
        let n_mcus = across * down;
        for mcu in 0..n_mcus {
            if self.restart > 0 && mcu > 0 && mcu.is_multiple_of(self.restart) {
                coder.restart()?;
            }
            let (x, y) = (mcu % across, mcu / across);
            if let &[only] = parts {
                self.block(only, x, y, coder)?;
                continue;
            }
            for &part in parts {
                let (h, v) = (self.components[part].h, self.components[part].v);
                for i in 0..h * v {
                    self.block(part, x * h + i % h, y * v + i / h, coder)?;
                }
            }
        }
        Some(())
    }

    fn block(&mut self, part: usize, x: usize, y: usize, coder: &mut Coder<'_>) -> Option<()> {
        let component = &mut self.components[part];
        let dc = self.dc_tables.get(component.dc_table).and_then(Option::as_ref);
        let ac = self.ac_tables.get(component.ac_table).and_then(Option::as_ref);
        if !self.is_progressive {
            coder.dc(dc?)?;
            return coder.ac_all(ac?);
        }
        let nonzero = component.nonzero.get_mut(y * component.stride + x)?;
        match (coder.band.start, coder.band.is_first) {
            (0, true) => coder.dc(dc?),
            (0, false) => coder.bits.skip(1),
            (_, true) => coder.ac_first(ac?, nonzero),
            (_, false) => coder.ac_refine(ac?, nonzero),
        }
    }

    /// Whether all bits of all coefficients were in some scan.
    fn has_everything(&self) -> bool {
        let is_whole = |component: &Component| component.missing.iter().all(|m| *m == Some(0));
        !self.components.is_empty() && self.components.iter().all(is_whole)
    }
}

/// The state of a scan between blocks.
struct Coder<'a> {
    bits: Bits<'a>,
    band: Band,
    /// Blocks that have no further coefficients of their own.
    run: u32,
}

impl Coder<'_> {
    fn restart(&mut self) -> Option<()> {
        self.run = 0;
        self.bits.restart()
    }

    fn dc(&mut self, table: &Table) -> Option<()> {
        let n_bits = table.symbol(&mut self.bits)?;
        self.bits.skip(n_bits.min(16))
    }

    /// The 63 coefficients of a block that is coded at once.
    fn ac_all(&mut self, table: &Table) -> Option<()> {
        let mut at = 1;
        while at < 64 {
            let symbol = table.symbol(&mut self.bits)?;
            match (symbol >> 4, symbol & 15) {
                (15, 0) => at += 16,
                (_, 0) => return Some(()),
                (zeros, n_bits) => {
                    self.bits.skip(n_bits)?;
                    at += usize::from(zeros) + 1;
                }
            }
        }
        (at == 64).then_some(())
    }

    fn ac_first(&mut self, table: &Table, nonzero: &mut u64) -> Option<()> {
        if self.run > 0 {
            self.run -= 1;
            return Some(());
        }
        let mut at = self.band.start;
        while at <= self.band.end {
            let symbol = table.symbol(&mut self.bits)?;
            match (symbol >> 4, symbol & 15) {
                (15, 0) => at += 16,
                (length, 0) => {
                    self.run = self.bits.run(length)? - 1;
                    return Some(());
                }
                (zeros, n_bits) => {
                    at += zeros;
                    *nonzero |= 1u64.checked_shl(at.into())?;
                    self.bits.skip(n_bits)?;
                    at += 1;
                }
            }
        }
        Some(())
    }

    /// A correction bit for each coefficient that is not zero, and the places of new ones.
    fn ac_refine(&mut self, table: &Table, nonzero: &mut u64) -> Option<()> {
        let end = self.band.end;
        let mut at = self.band.start;
        while self.run == 0 && at <= end {
            let symbol = table.symbol(&mut self.bits)?;
            let (mut zeros, is_new) = (symbol >> 4, symbol & 15 != 0);
            if is_new {
                self.bits.skip(1)?;
            } else if zeros < 15 {
                self.run = self.bits.run(zeros)?;
                break;
            }
            while at <= end {
                if *nonzero >> at & 1 == 1 {
                    self.bits.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if is_new && at <= end {
                *nonzero |= 1 << at;
            }
            at += 1;
        }
        if self.run > 0 {
            for at in at..=end {
                self.bits.skip((*nonzero >> at & 1) as u8)?;
            }
            self.run -= 1;
        }
        Some(())
    }
}

/// Coded bytes as bits; `None` where they end.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The byte that is read next.
    at: usize,
    byte: u8,
    left: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if self.byte == 0xff {
                // A zero makes it a coded byte, anything else a marker.
                if self.bytes.get(self.at) != Some(&0) {
                    self.at -= 1;
                    return None;
                }
                self.at += 1;
            }
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn skip(&mut self, n: u8) -> Option<()> {
        for _ in 0..n {
            self.bit()?;
        }
        Some(())
    }

    /// A run of 2^`length` blocks and as many as the next `length` bits say.
    fn run(&mut self, length: u8) -> Option<u32> {
        (0..length).try_fold(1, |run, _| Some(run << 1 | self.bit()?))
    }

    /// Steps over a restart marker, which begins with the next byte.
    fn restart(&mut self) -> Option<()> {
        self.left = 0;
        let rest = self.bytes.get(self.at..)?;
        let fill = rest.iter().take_while(|&&b| b == 0xff).count();
        let is_restart = fill > 0 && matches!(rest.get(fill), Some(0xd0..=0xd7));
        self.at += fill + 1;
        is_restart.then_some(())
    }
}

/// A Huffman table by code length.
struct Table {
    /// Of each length, the first code and how many there are.
    lengths: [(u32, u32); 16],
    values: Vec<u8>,
}

impl Table {
    fn new(counts: &[u8; 16], values: &[u8]) -> Table {
        let mut code = 0;
        let lengths = counts.map(|n| {
            let first = code;
            code = (code + u32::from(n)) << 1;
            (first, n.into())
        });
        Table { lengths, values: values.to_vec() }
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<u8> {
        let (mut code, mut before) = (0, 0);
        for (first, n) in self.lengths {
            code = code << 1 | bits.bit()?;
            if let Some(i) = code.checked_sub(first).filter(|i| *i < n) {
                return self.values.get((before + i) as usize).copied();
            }
            before += n;
        }
        None
    }
}
