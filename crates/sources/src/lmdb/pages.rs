//! The pages of an LMDB file, read in the order of the keys and without trust: liblmdb itself believes what
//! it maps, and a damaged page is a crash there.
//!
//! A file is pages of one size. The first two say where the tree is; the newer counts. A branch page leads
//! to pages, a leaf page has keys with their values, and a long value fills pages of its own.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::unread::Unread;

const MAGIC: u32 = 0xbeef_c0de;
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 16;
/// A page's pointers are 16 bits.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 256..=65536;
const META_BYTES: usize = 136;
const DB_BYTES: usize = 48;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;

const BIG: u16 = 1;
const SUB: u16 = 2;
const SEVERAL: u16 = 4;

/// Trees are flatter: liblmdb's own bound.
const DEPTH_MAX: usize = 32;

/// Where no tree is.
const NO_PAGE: u64 = u64::MAX;

/// Bytes read by their place.
pub trait ReadAt {
    /// Fills `bytes` from `start` on.
    ///
    /// # Errors
    ///
    /// That of the bytes' source, or that there are fewer.
    fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// How many there are.
    ///
    /// # Errors
    ///
    /// That of the bytes' source.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, start)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(start).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(bytes.len())?));
        let found = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A tree of keys and values.
#[derive(Debug)]
pub struct Tree<R> {
    file: R,
    n_bytes: u64,
    page_bytes: u64,
    root: u64,
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub start: u64,
    pub n_bytes: u32,
}

/// A page that was read, and the next of its nodes.
struct Open {
    bytes: Vec<u8>,
    /// Where it begins in the file.
    start: u64,
    next: usize,
}

impl<R: ReadAt> Tree<R> {
    /// Finds the tree of a file.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or a fault of the system.
    pub fn open(file: R) -> Result<Tree<R>, Unread> {
        let n_bytes = file.size()?;
        let first = meta(&file, 0)?.ok_or("no LMDB file begins here")?;
        // One of the two may be damaged: then the other counts.
        let second = meta(&file, first.page_bytes).ok().flatten();
        let second = second.filter(|second| second.page_bytes == first.page_bytes);
        let newer = second.filter(|second| second.transaction > first.transaction).unwrap_or(first);
        Ok(Tree { file, n_bytes, page_bytes: newer.page_bytes, root: newer.root })
    }

    /// Calls `each` with every key and where its value is, in the order of the keys, those of databases in
    /// this one included.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, a fault of the system, or what `each` gives.
    pub fn walk<E: From<Unread>>(
        &self,
        mut each: impl FnMut(&R, &[u8], Place) -> Result<(), E>,
    ) -> Result<(), E> {
        // No page is in a tree twice, so that a circle is seen.
        let mut left = self.n_bytes / self.page_bytes;
        let mut trees = vec![(self.root, 0)];
        while let Some((root, depth)) = trees.pop() {
            if root == NO_PAGE {
                continue;
            }
            let mut path = vec![self.page(root, &mut left)?];
            loop {
                let depth_of_page = path.len();
                let Some(open) = path.last_mut() else { break };
                let Some(node) = open.node().map_err(E::from)? else {
                    path.pop();
                    continue;
                };
                match node {
                    Node::Branch(page) if depth_of_page < DEPTH_MAX => {
                        path.push(self.page(page, &mut left)?);
                    }
                    Node::Branch(_) => {
                        return Err(Unread::from("its pages lie deeper than in any tree").into());
                    }
                    Node::Value { key, place } => {
                        let key = open.bytes[key].to_vec();
                        each(&self.file, &key, place)?;
                    }
                    Node::Long { key, page, n_bytes } => {
                        let key = open.bytes[key].to_vec();
                        let place = self.long(page, n_bytes)?;
                        each(&self.file, &key, place)?;
                    }
                    Node::Tree(root) if depth == 0 => trees.push((root, 1)),
                    Node::Tree(_) => {
                        return Err(Unread::from("a database in one that is in another").into());
                    }
                }
            }
        }
        Ok(())
    }

    fn page(&self, number: u64, left: &mut u64) -> Result<Open, Unread> {
        *left = left.checked_sub(1).ok_or("its pages lead in a circle")?;
        let start = self.start(number)?;
        let mut bytes = vec![0; self.page_bytes as usize];
        self.file.read_at(start, &mut bytes)?;
        match u16_at(&bytes, 10) & (BRANCH | LEAF | OVERFLOW | META) {
            BRANCH | LEAF => Ok(Open { bytes, start, next: 0 }),
            _ => Err(format!("page {number} is no page of a tree").into()),
        }
    }

    /// Where a page begins.
    fn start(&self, number: u64) -> Result<u64, Unread> {
        let start = number.checked_mul(self.page_bytes);
        let is_in =
            |start: &u64| start.checked_add(self.page_bytes).is_some_and(|e| e <= self.n_bytes);
        Ok(start
            .filter(is_in)
            .ok_or_else(|| format!("it has no page {number}: is the copy complete?"))?)
    }

    /// The value that begins on a page of its own.
    fn long(&self, number: u64, n_bytes: u32) -> Result<Place, Unread> {
        let page = self.start(number)?;
        let mut header = [0; HEADER_BYTES];
        self.file.read_at(page, &mut header)?;
        let start = page + HEADER_BYTES as u64;
        let is_in = start.checked_add(n_bytes.into()).is_some_and(|end| end <= self.n_bytes);
        match u16_at(&header, 10) & OVERFLOW != 0 && is_in {
            true => Ok(Place { start, n_bytes }),
            false => Err(format!("page {number} holds no value of {n_bytes} bytes").into()),
        }
    }
}

enum Node {
    /// Another page.
    Branch(u64),
    /// A key and the value behind it.
    Value { key: std::ops::Range<usize>, place: Place },
    /// A key, the page at which its value begins, and how long that is.
    Long { key: std::ops::Range<usize>, page: u64, n_bytes: u32 },
    /// The root of another tree.
    Tree(u64),
}

impl Open {
    /// The next node.
    fn node(&mut self) -> Result<Option<Node>, Unread> {
        let bytes = &self.bytes[..];
        let damaged = || Unread::from(format!("the page at byte {} is damaged", self.start));
        let is_leaf = u16_at(bytes, 10) & LEAF != 0;
        let lower = usize::from(u16_at(bytes, 12));
        let n =
            lower.checked_sub(HEADER_BYTES).filter(|_| lower <= bytes.len()).ok_or_else(damaged)?
                / 2;
        if self.next == n {
            return Ok(None);
        }
        let at = usize::from(u16_at(bytes, HEADER_BYTES + 2 * self.next));
        self.next += 1;
        let head = bytes.get(at..at + 8).filter(|_| at >= lower).ok_or_else(damaged)?;
        let [low, high, flags, key_bytes] = [0, 2, 4, 6].map(|i| u16_at(head, i));
        if !is_leaf {
            let page = u64::from(low) | u64::from(high) << 16 | u64::from(flags) << 32;
            return Ok(Some(Node::Branch(page)));
        }
        let key = at + 8..at + 8 + usize::from(key_bytes);
        let n_bytes = u32::from(low) | u32::from(high) << 16;
        let data = key.end;
        let here = |n: usize| bytes.get(data..data.checked_add(n)?);
        if key.end > bytes.len() {
            return Err(damaged());
        }
        Ok(Some(match flags {
            0 => {
                here(n_bytes as usize).ok_or_else(damaged)?;
                Node::Value { key, place: Place { start: self.start + data as u64, n_bytes } }
            }
            BIG => {
                let page = here(8).ok_or_else(damaged)?;
                Node::Long { key, page: u64_at(page, 0), n_bytes }
            }
            SUB => Node::Tree(u64_at(here(DB_BYTES).ok_or_else(damaged)?, 40)),
            flags if flags & SEVERAL != 0 => {
                return Err("a key has several values, which are not read".into());
            }
            _ => return Err(damaged()),
        }))
    }
}

struct Meta {
    page_bytes: u64,
    root: u64,
    transaction: u64,
}

/// What the page at `start` says of the file; nothing if it is none that does.
fn meta(file: &impl ReadAt, start: u64) -> Result<Option<Meta>, Unread> {
    let mut bytes = [0; HEADER_BYTES + META_BYTES];
    match file.read_at(start, &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let meta = &bytes[HEADER_BYTES..];
    if u16_at(&bytes, 10) & META == 0 || u32_at(meta, 0) != MAGIC {
        return Ok(None);
    }
    let version = u32_at(meta, 4);
    if version != VERSION {
        return Err(format!("it is of version {version} of LMDB's files; {VERSION} is read").into());
    }
    // The first of two trees is that of free pages, and says how large pages are.
    let page_bytes = u32_at(meta, 24);
    if !PAGE_BYTES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err(format!("pages of {page_bytes} bytes").into());
    }
    let root = u64_at(meta, 24 + DB_BYTES + 40);
    let transaction = u64_at(meta, 24 + 2 * DB_BYTES + 8);
    Ok(Some(Meta { page_bytes: page_bytes.into(), root, transaction }))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
