//! Where the rows of a checkpoint are: in its own tensors, or in the files of a folder.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use tch::{Kind, Tensor};

use super::{
    BLOCKS, FILE, FIRST_CLASS, IN_PLACE, LoadedRows, RANGE, SEED, STEPS, SavedTensors, integers,
    memory_of, refused,
    saving::{CLASS, STAMP, WEIGHT},
    stamp, state_name,
};
use crate::{
    HeadError,
    centres::{
        file::{COPIES, FileName, FileRecord, Segment, damaged_row, open_saved},
        host::{Frame, RowStore},
        row::{self, RowLayout},
    },
    config::HeadConfig,
    elements::with_elements,
    optim::{Dense, FIRST, Stamp, UNTOUCHED, UpdateHistory, UpdateMap, UpdateRule},
    range::ClassRange,
};

/// Rows that are read at a time, which bounds the memory that takes.
const CHUNK_ROWS: usize = 1 << 13;

type Pieces<'a> = [Box<dyn SavedTensors + 'a>];

/// The rows of one of the ranks that wrote a checkpoint.
pub(super) struct Source {
    /// Which of the pieces it is.
    piece: usize,
    /// The classes that the rank had.
    classes: Range<u64>,
    kind: SourceKind,
}

enum SourceKind {
    /// A row for every class, with a time of its own or not.
    Dense { stamped: bool },
    /// The touched rows, each with its class and its time.
    Touched {
        n_rows: i64,
        /// The classes of all, once they were read.
        classes: Option<Vec<i64>>,
    },
    /// Files of this folder.
    Files { folder: PathBuf, record: FileRecord, opened: Option<Box<Opened>> },
    /// A rank without classes that kept none of them in files.
    Nothing,
}

/// Files that rows are read from.
struct Opened {
    segment: Segment,
    /// Class and place of every row, by class.
    places: Vec<(u64, usize)>,
}

impl Source {
    /// The sources of all pieces, each checked as far as it can be without reading rows.
    pub fn find(
        pieces: &mut Pieces<'_>,
        config: &HeadConfig,
        memory: &UpdateHistory,
        folder: Option<&Path>,
    ) -> Result<Vec<Source>, HeadError> {
        let of_piece = |(piece, tensors): (usize, &mut Box<dyn SavedTensors + '_>)| {
            let tensors = tensors.as_mut();
            let (classes, kind) = if let Some(now) = integers(tensors, IN_PLACE, 1)? {
                files(tensors, now[0], config, memory, folder)?
            } else if tensors.spec(CLASS)?.is_some() {
                touched(tensors, config)?
            } else {
                dense(tensors, config)?
            };
            Ok(Source { piece, classes, kind })
        };
        pieces.iter_mut().enumerate().map(of_piece).collect()
    }

    /// Refuses sources that leave out a class of `wanted`.
    pub fn check_cover(sources: &[Source], wanted: Range<u64>) -> Result<(), HeadError> {
        let mut next = wanted.start;
        for Source { classes, .. } in sources {
            if classes.start <= next {
                next = next.max(classes.end);
            }
        }
        if next >= wanted.end {
            return Ok(());
        }
        let held = match sources {
            [Source { classes, .. }] => format!("{} to {} (exclusive)", classes.start, classes.end),
            _ => format!("no class {next}"),
        };
        let problem =
            format!("holds classes {held}, but {} to {} are needed", wanted.start, wanted.end);
        Err(refused(WEIGHT, problem))
    }

    /// The record of the files that the rank of `range` may go on in.
    pub fn in_place(&self, centres: &RowStore, range: ClassRange) -> Option<FileRecord> {
        match &self.kind {
            SourceKind::Files { folder, record, .. }
                if record.name.classes == range.ids() && is_same(folder, centres.folder()) =>
            {
                Some(record.clone())
            }
            _ => None,
        }
    }

    /// Whether the rows are in files of this folder.
    pub fn is_in(&self, folder: &Path) -> bool {
        matches!(&self.kind, SourceKind::Files { folder: own, .. } if is_same(own, folder))
    }

    /// Reads the rows of the classes in `wanted`, a few thousand at a time; they are numbered from its
    /// first.
    pub fn import(
        &mut self,
        pieces: &mut Pieces<'_>,
        wanted: Range<u64>,
        config: &HeadConfig,
        memory: &UpdateHistory,
        take: &mut dyn FnMut(LoadedRows) -> Result<(), HeadError>,
    ) -> Result<(), HeadError> {
        let first = wanted.start;
        let wanted = self.classes.start.max(wanted.start)..self.classes.end.min(wanted.end);
        if wanted.is_empty() {
            return Ok(());
        }
        let import = Import { first, wanted, config, memory, take };
        let tensors = pieces[self.piece].as_mut();
        match &mut self.kind {
            SourceKind::Nothing => Ok(()),
            SourceKind::Dense { stamped } => import.dense(tensors, self.classes.start, *stamped),
            SourceKind::Touched { n_rows, classes } => {
                let classes = match classes {
                    Some(classes) => classes,
                    None => classes.insert(read_classes(tensors, *n_rows)?),
                };
                import.touched(tensors, classes)
            }
            SourceKind::Files { folder, record, opened } => {
                let opened = match opened {
                    Some(opened) => opened,
                    None => opened.insert(Box::new(Opened::open(folder, record, config, memory)?)),
                };
                import.files(opened)
            }
        }
    }
}

impl Opened {
    fn open(
        folder: &Path,
        record: &FileRecord,
        config: &HeadConfig,
        memory: &UpdateHistory,
    ) -> Result<Opened, HeadError> {
        let stride = COPIES * RowLayout::of_config(config).size_bytes();
        let segment = open_saved(folder, config, stride, record, memory.now)?;
        let used = segment.used().iter().enumerate();
        let mut places: Vec<(u64, usize)> =
            used.filter_map(|(place, entry)| Some((entry.class()?, place))).collect();
        places.sort_unstable();
        Ok(Opened { segment, places })
    }
}

/// The classes of touched rows, which must ascend.
fn read_classes(tensors: &mut dyn SavedTensors, n_rows: i64) -> Result<Vec<i64>, HeadError> {
    let classes = tensors.read_rows(CLASS, 0..n_rows)?.contiguous();
    let classes = with_elements(&classes, |classes: &[i64]| classes.to_vec());
    let ascends =
        classes.first().is_none_or(|&first| first >= 0) && classes.is_sorted_by(|a, b| a < b);
    match ascends {
        true => Ok(classes),
        false => Err(refused(CLASS, "is not ascending".to_owned())),
    }
}

/// Whether two paths name one folder, by whatever way.
fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn files(
    tensors: &mut dyn SavedTensors,
    now: i64,
    config: &HeadConfig,
    memory: &UpdateHistory,
    folder: Option<&Path>,
) -> Result<(Range<u64>, SourceKind), HeadError> {
    check_seed(tensors, config)?;
    let now = stamp(IN_PLACE, now)?;
    if now != memory.now {
        return Err(refused(IN_PLACE, format!("is {now}, but {STEPS} is {}", memory.now)));
    }
    let Some(classes) = range_of(tensors)? else {
        let problem = "names centres in files of an older format, which this version does not read";
        return Err(refused(IN_PLACE, problem.to_owned()));
    };
    let Some(file) = integers(tensors, FILE, 4)? else {
        return Ok((classes, SourceKind::Nothing));
    };
    let n_blocks = tensors.spec(BLOCKS)?.map_or(0, |(size, _)| size.iter().product::<i64>());
    let blocks = integers(tensors, BLOCKS, usize::try_from(n_blocks).unwrap_or(0))?;
    let blocks: Vec<u64> = blocks.unwrap_or_default().into_iter().map(|sum| sum as u64).collect();
    let numbers: Option<Vec<u64>> = file.iter().map(|&n| u64::try_from(n).ok()).collect();
    let Some([start, end, born, n_used]) = numbers.as_deref() else {
        return Err(refused(FILE, format!("is {file:?}")));
    };
    let name = FileName { classes: *start..*end, born: stamp(FILE, *born as i64)? };
    if name.classes != classes {
        return Err(refused(FILE, format!("is {file:?}, but {RANGE} is {classes:?}")));
    }
    let record =
        FileRecord::new(name, *n_used, blocks).map_err(|problem| refused(FILE, problem))?;
    let folder = folder.ok_or_else(|| {
        refused(IN_PLACE, "names centres on disk, but the head has them in memory".to_owned())
    })?;
    Ok((classes, SourceKind::Files { folder: folder.to_path_buf(), record, opened: None }))
}

fn touched(
    tensors: &mut dyn SavedTensors,
    config: &HeadConfig,
) -> Result<(Range<u64>, SourceKind), HeadError> {
    check_seed(tensors, config)?;
    let classes = range_of(tensors)?.ok_or_else(|| refused(RANGE, "is missing".to_owned()))?;
    let (size, kind) = tensors.spec(CLASS)?.unwrap_or((Vec::new(), Kind::Int64));
    let n_rows = match size[..] {
        [n_rows] if kind == Kind::Int64 => n_rows,
        _ => return Err(refused(CLASS, format!("is {size:?} {kind:?}, not [rows] Int64"))),
    };
    check_rows(tensors, config, Some(n_rows))?;
    match tensors.spec(STAMP)? {
        Some((size, Kind::Int)) if size == [n_rows] => {}
        Some((size, kind)) => {
            return Err(refused(STAMP, format!("is {size:?} {kind:?}, not [{n_rows}] Int")));
        }
        None => return Err(refused(STAMP, "is missing".to_owned())),
    }
    Ok((classes, SourceKind::Touched { n_rows, classes: None }))
}

fn dense(
    tensors: &mut dyn SavedTensors,
    config: &HeadConfig,
) -> Result<(Range<u64>, SourceKind), HeadError> {
    let n_rows = check_rows(tensors, config, None)?;
    let first = integers(tensors, FIRST_CLASS, 1)?;
    let first = first.ok_or_else(|| refused(FIRST_CLASS, "is missing".to_owned()))?[0];
    let classes = u64::try_from(first)
        .ok()
        .and_then(|first| Some(first..first.checked_add(n_rows as u64)?))
        .ok_or_else(|| refused(FIRST_CLASS, format!("is {first}")))?;
    let stamped = match tensors.spec(STAMP)? {
        None => false,
        Some((size, Kind::Int)) if size == [n_rows] => true,
        Some((size, kind)) => {
            return Err(refused(STAMP, format!("is {size:?} {kind:?}, not [{n_rows}] Int")));
        }
    };
    Ok((classes, SourceKind::Dense { stamped }))
}

fn range_of(tensors: &mut dyn SavedTensors) -> Result<Option<Range<u64>>, HeadError> {
    let Some(found) = integers(tensors, RANGE, 2)? else { return Ok(None) };
    let range = u64::try_from(found[0]).ok().zip(u64::try_from(found[1]).ok());
    let range = range.filter(|(start, end)| start <= end && *end <= u64::from(u32::MAX));
    let (start, end) = range.ok_or_else(|| refused(RANGE, format!("is {found:?}")))?;
    Ok(Some(start..end))
}

/// Rows that are not saved follow from the seed.
fn check_seed(tensors: &mut dyn SavedTensors, config: &HeadConfig) -> Result<(), HeadError> {
    match integers(tensors, SEED, 1)? {
        Some(seed) if seed[0] as u64 != config.seed => {
            Err(refused(SEED, format!("is {}, but the head has {}", seed[0] as u64, config.seed)))
        }
        _ => Ok(()),
    }
}

/// Checks the shapes of weight and state; returns their rows.
fn check_rows(
    tensors: &dyn SavedTensors,
    config: &HeadConfig,
    n_rows: Option<i64>,
) -> Result<i64, HeadError> {
    let (dim, n_state) = (config.dim as i64, RowLayout::of_config(config).n_state() as i64);
    let state_name = state_name(config.optimizer);
    let spec = |name| tensors.spec(name)?.ok_or_else(|| refused(name, "is missing".to_owned()));
    let (weight, state) = (spec(WEIGHT)?, spec(state_name)?);
    let n_rows = match weight.0[..] {
        [found, width] if width == dim && n_rows.is_none_or(|n_rows| n_rows == found) => found,
        _ => {
            let rows = n_rows.map_or("classes".to_owned(), |n_rows| n_rows.to_string());
            return Err(refused(WEIGHT, format!("is {:?}, not [{rows}, {dim}]", weight.0)));
        }
    };
    let (found, expected) = (state.0, [n_rows, n_state]);
    if found != expected {
        return Err(refused(state_name, format!("is {found:?}, not {expected:?}")));
    }
    for (name, kind) in [(WEIGHT, weight.1), (state_name, state.1)] {
        if !matches!(kind, Kind::Float | Kind::BFloat16) {
            return Err(refused(name, format!("is {kind:?}, not Float or BFloat16")));
        }
    }
    Ok(n_rows)
}

/// Rows that are read from a source.
struct Import<'a> {
    /// The class of row 0.
    first: u64,
    wanted: Range<u64>,
    config: &'a HeadConfig,
    memory: &'a UpdateHistory,
    take: &'a mut dyn FnMut(LoadedRows) -> Result<(), HeadError>,
}

impl Import<'_> {
    fn dense(
        mut self,
        tensors: &mut dyn SavedTensors,
        first: u64,
        stamped: bool,
    ) -> Result<(), HeadError> {
        let (start, end) = ((self.wanted.start - first) as i64, (self.wanted.end - first) as i64);
        for start in (start..end).step_by(CHUNK_ROWS) {
            let rows = start..(start + CHUNK_ROWS as i64).min(end);
            let stamps = match stamped {
                true => self.stamps(tensors, rows.clone())?,
                false => vec![self.memory.now; (rows.end - rows.start) as usize],
            };
            let classes = rows.clone().map(|row| first + row as u64);
            let is_touched = |(i, class)| (stamps[i] != UNTOUCHED).then_some((i, class));
            let chosen: Vec<(usize, u64)> = classes.enumerate().filter_map(is_touched).collect();
            self.give(tensors, rows, &chosen, &stamps)?;
        }
        Ok(())
    }

    fn touched(mut self, tensors: &mut dyn SavedTensors, classes: &[i64]) -> Result<(), HeadError> {
        let at = |class: u64| classes.partition_point(|&found| (found as u64) < class);
        let (start, end) = (at(self.wanted.start), at(self.wanted.end));
        for start in (start..end).step_by(CHUNK_ROWS) {
            let rows = start..(start + CHUNK_ROWS).min(end);
            let chosen: Vec<(usize, u64)> =
                classes[rows.clone()].iter().map(|&class| class as u64).enumerate().collect();
            let rows = rows.start as i64..rows.end as i64;
            let stamps = self.stamps(tensors, rows.clone())?;
            if stamps.contains(&UNTOUCHED) {
                return Err(refused(STAMP, "holds 0, which no moved row has".to_owned()));
            }
            self.give(tensors, rows, &chosen, &stamps)?;
        }
        Ok(())
    }

    /// Hands on the chosen of some rows, which must be finite, by their position among these and their class.
    fn give(
        &mut self,
        tensors: &mut dyn SavedTensors,
        rows: Range<i64>,
        chosen: &[(usize, u64)],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        let (dim, n_state) = (self.config.dim, RowLayout::of_config(self.config).n_state());
        let weight = numbers(&tensors.read_rows(WEIGHT, rows.clone())?);
        let state = numbers(&tensors.read_rows(state_name(self.config.optimizer), rows.clone())?);
        let of = |values: &[f32], width: usize| -> Vec<f32> {
            chosen.iter().flat_map(|(i, _)| &values[i * width..][..width]).copied().collect()
        };
        let found = LoadedRows {
            rows: chosen.iter().map(|(_, class)| self.row_of(*class)).collect(),
            weight: of(&weight, dim),
            state: of(&state, n_state),
            stamps: chosen.iter().map(|(i, _)| stamps[*i]).collect(),
        };
        let numbers = found.weight.chunks(dim).zip(found.state.chunks(n_state));
        for ((weight, state), (i, centre)) in numbers.zip(chosen) {
            if let Some(number) = row::not_finite(weight, state) {
                let row = rows.start as u64 + *i as u64;
                return Err(HeadError::centre_not_finite(tensors.origin(), row, *centre, number));
            }
        }
        (self.take)(found)
    }

    fn row_of(&self, class: u64) -> u32 {
        (class - self.first) as u32
    }

    /// Times of rows, each one that the checkpoint can have.
    fn stamps(
        &self,
        tensors: &mut dyn SavedTensors,
        rows: Range<i64>,
    ) -> Result<Vec<Stamp>, HeadError> {
        let stamps = tensors.read_rows(STAMP, rows)?.contiguous();
        let stamps = with_elements(&stamps, |stamps: &[i32]| stamps.to_vec());
        let (oldest, newest) = times_of(self.memory);
        let known = |stamp: i32| {
            Stamp::try_from(stamp).is_ok_and(|s| s == UNTOUCHED || (oldest..=newest).contains(&s))
        };
        if let Some(stamp) = stamps.iter().find(|&&stamp| !known(stamp)) {
            let least = if oldest == 1 { "0".to_owned() } else { format!("0 or {oldest}") };
            return Err(refused(STAMP, format!("holds {stamp}, not {least} to {newest}")));
        }
        Ok(stamps.into_iter().map(|stamp| stamp as Stamp).collect())
    }

    fn files(self, opened: &Opened) -> Result<(), HeadError> {
        let at = |class: u64| opened.places.partition_point(|&(found, _)| found < class);
        let chosen = &opened.places[at(self.wanted.start)..at(self.wanted.end)];
        for chosen in chosen.chunks(CHUNK_ROWS) {
            let rows = self.rows_of_files(&opened.segment, chosen)?;
            (self.take)(rows)?;
        }
        Ok(())
    }

    fn rows_of_files(
        &self,
        segment: &Segment,
        chosen: &[(u64, usize)],
    ) -> Result<LoadedRows, HeadError> {
        let layout = RowLayout::of_config(self.config);
        let (oldest, newest) = times_of(self.memory);
        let (mut weight, mut state) = (vec![0.0; layout.dim()], vec![0.0; layout.n_state()]);
        let mut out = LoadedRows {
            rows: Vec::new(),
            weight: Vec::new(),
            state: Vec::new(),
            stamps: Vec::new(),
        };
        for &(class, place) in chosen {
            let (entry, bytes) = segment.get(place);
            let Some((copy, stamp)) = entry.newest_at(self.memory.now) else { continue };
            let bytes = &bytes[copy * layout.size_bytes()..][..layout.size_bytes()];
            let file = segment.file().expect("it was opened from one");
            if !entry.vouches_for(copy, bytes) {
                return Err(damaged_row(&file.rows_path(), place, class));
            }
            let row = self.row_of(class);
            if !(oldest..=newest).contains(&stamp) || out.rows.last() == Some(&row) {
                let problem =
                    format!("holds class {class} as of step {stamp}, which no row can be");
                return Err(file.damaged_entry(place, &problem));
            }
            layout.read_weight(bytes, &mut weight);
            layout.read_state(bytes, &mut state);
            out.rows.push(row);
            out.stamps.push(stamp);
            if let Some(number) = row::not_finite(&weight, &state) {
                let origin = file.rows_path().display().to_string();
                return Err(HeadError::centre_not_finite(origin, place as u64, class, number));
            }
            out.weight.extend_from_slice(&weight);
            out.state.extend_from_slice(&state);
        }
        Ok(out)
    }
}

/// The weights of all centres of a checkpoint, whatever holds them, up to date.
pub struct CentreReader<'a> {
    pieces: Vec<Box<dyn SavedTensors + 'a>>,
    sources: Vec<Source>,
    config: HeadConfig,
    memory: UpdateHistory,
}

impl<'a> CentreReader<'a> {
    /// Opens the centres of a checkpoint.
    ///
    /// * `pieces`: what the ranks wrote, in the order of their classes
    /// * `config`: of the head that wrote it
    /// * `folder`: where the centres are in files, if they are
    ///
    /// # Errors
    ///
    /// As [`Head::load`](crate::Head::load).
    pub fn open(
        mut pieces: Vec<Box<dyn SavedTensors + 'a>>,
        config: &HeadConfig,
        folder: Option<&Path>,
    ) -> Result<CentreReader<'a>, HeadError> {
        config.validate()?;
        let memory = memory_of(&mut pieces)?;
        let sources = Source::find(&mut pieces, config, &memory, folder)?;
        let reader = CentreReader { pieces, sources, config: config.clone(), memory };
        Source::check_cover(&reader.sources, 0..reader.n_centres())?;
        Ok(reader)
    }

    /// Numbers of a centre.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.config.dim
    }

    /// Numbers of state that the optimizer keeps of a centre: D under SGD, 2 D under `AdamW`, 1 under
    /// row-wise Adagrad.
    #[must_use]
    pub fn n_state(&self) -> usize {
        RowLayout::of_config(&self.config).n_state()
    }

    /// Steps that the head had taken.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        u64::from(self.memory.now.saturating_sub(FIRST))
    }

    /// Number of centres: classes times the sub-centres of each.
    #[must_use]
    pub fn n_centres(&self) -> u64 {
        self.config.classes * self.config.margin.sub_centres() as u64
    }

    /// The weights of some centres as they are after all steps, those of untouched ones too, not
    /// normalised: `[centres, D]`, row by row. Whoever reads all goes through them in order.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if rows cannot be read, or are not those that were saved;
    /// [`HeadError::CentreNotFinite`].
    pub fn read(&mut self, classes: Range<u64>) -> Result<Vec<f32>, HeadError> {
        Ok(self.read_with_state(classes)?.0)
    }

    /// The same with the state of their optimizer, `[centres, n_state]`, row by row, which is 0 for
    /// centres that nothing has moved.
    ///
    /// # Errors
    ///
    /// As [`read`](CentreReader::read).
    pub fn read_with_state(
        &mut self,
        classes: Range<u64>,
    ) -> Result<(Vec<f32>, Vec<f32>), HeadError> {
        let (config, memory) = (&self.config, &self.memory);
        let (layout, rule) = (RowLayout::of_config(config), Dense::of_memory(memory));
        let (dim, first) = (config.dim, classes.start);
        let protected = [UNTOUCHED; 2];
        let frame = Frame { layout, seed: config.seed, first_class: first, n_copies: 1, protected };
        let (n_rows, n_state) = ((classes.end - first) as usize, layout.n_state());
        let (mut weight, mut state) = (vec![0.0; n_rows * dim], vec![0.0; n_rows * n_state]);
        let untouched = rule.missed(UNTOUCHED);
        let rows = weight.chunks_mut(dim).zip(state.chunks_mut(n_state));
        for (row, (weight, state)) in rows.enumerate() {
            frame.fill_initial(row, weight);
            if let Some(flow) = &untouched {
                row::advance(flow, weight, state);
            }
        }
        for source in &mut self.sources {
            source.import(&mut self.pieces, classes.clone(), config, memory, &mut |mut rows| {
                rows.make_up(&rule);
                let found = rows.weight.chunks(dim).zip(rows.state.chunks(n_state));
                for (&row, (found_weight, found_state)) in rows.rows.iter().zip(found) {
                    weight[row as usize * dim..][..dim].copy_from_slice(found_weight);
                    state[row as usize * n_state..][..n_state].copy_from_slice(found_state);
                }
                Ok(())
            })?;
        }
        Ok((weight, state))
    }
}

/// The least and the greatest time that a moved row can have.
fn times_of(memory: &UpdateHistory) -> (Stamp, Stamp) {
    // A row that misses nothing by not moving may be of any step.
    let oldest = memory.now - memory.missed.len() as Stamp;
    (
        if memory.missed.is_empty() && memory.before == UpdateMap::IDENTITY { 1 } else { oldest },
        memory.now,
    )
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_kind(Kind::Float).contiguous();
    with_elements(&tensor, |values: &[f32]| values.to_vec())
}
