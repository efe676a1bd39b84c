//! IJB-B and IJB-C in the layout that InsightFace's users share: `meta/` and `loose_crop/`.
//!
//! [`IjbSet`] is what is judged, [`Options`] how, [`IjbReport`] the outcome.

mod extract;
mod judge;
mod meta;
mod report;

pub use extract::embed;
pub use judge::{Embedded, Judged, Options, judge};
pub use meta::{FaceList, MetaPaths, PairList, SearchList, TemplateIndex};
pub(crate) use report::pooling;
pub use report::{GalleryRow, IjbReport, SearchReport, TarTable, TemplateTarRow, TpirRow, Units};

use std::path::{Path, PathBuf};

use pfc_sources::exists;

use crate::{
    EvalError,
    protocols::{self, IjbFacts, differences},
};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Benchmark {
    /// IJB-B.
    IjbB,
    /// IJB-C.
    IjbC,
}

impl Benchmark {
    /// How the names of its files start, and its command is called.
    pub fn prefix(self) -> &'static str {
        match self {
            Benchmark::IjbB => "ijbb",
            Benchmark::IjbC => "ijbc",
        }
    }

    /// What the complete benchmark holds.
    pub fn facts(self) -> IjbFacts {
        match self {
            Benchmark::IjbB => protocols::ijbb(),
            Benchmark::IjbC => protocols::ijbc(),
        }
    }
}

/// The lists of a benchmark, checked against each other.
#[derive(Debug)]
pub struct IjbSet {
    /// Which it is.
    pub benchmark: Benchmark,
    /// Its folder.
    pub data: PathBuf,
    /// Its faces, in file order.
    pub faces: FaceList,
    /// Its templates.
    pub index: TemplateIndex,
    /// The 1:1 protocol.
    pub pairs: PairList,
    /// The 1:N protocol, if its lists are there.
    pub search: Option<SearchLists>,
    /// Where the lists are.
    pub paths: MetaPaths,
}

/// The lists of the 1:N protocol.
#[derive(Debug)]
pub struct SearchLists {
    /// By name.
    pub galleries: Vec<(String, SearchList)>,
    /// The probes, the same for each gallery.
    pub probes: SearchList,
}

impl IjbSet {
    /// Reads all lists below `data`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::Verify`] for the first line that breaks the layout.
    pub fn open(data: &Path, benchmark: Benchmark) -> Result<IjbSet, EvalError> {
        let galleries = benchmark.facts().galleries;
        let paths = MetaPaths::new(data, benchmark.prefix(), &galleries);
        let faces = FaceList::read(&paths.landmarks, &paths.faces)?;
        let index = TemplateIndex::new(faces.templates());
        let pairs = PairList::read(&paths.pairs, &index)?;
        let search = SearchLists::read(&paths, &index)?;
        Ok(IjbSet { benchmark, data: data.to_owned(), faces, index, pairs, search, paths })
    }

    /// Where the faces are.
    pub fn images(&self) -> PathBuf {
        self.data.join("loose_crop")
    }

    /// What is not as in the complete benchmark.
    pub fn differences(&self) -> Vec<String> {
        let facts = self.benchmark.facts();
        let genuine = self.pairs.same.iter().filter(|&&same| same).count();
        let mut counts = vec![
            ("faces", self.faces.names.len(), facts.faces),
            ("templates", self.index.len(), facts.templates),
            ("pairs", self.pairs.pairs.len(), facts.pairs),
            ("genuine pairs", genuine, facts.genuine),
        ];
        if let Some(search) = &self.search {
            let galleries = search.galleries.iter().zip(&facts.gallery_templates);
            counts.extend(galleries.map(|((_, g), &n)| ("gallery templates", g.rows.len(), n)));
            let probes = facts.probe_templates.map(|n| ("probes", search.probes.rows.len(), n));
            counts.extend(probes);
        }
        let mut found = differences(&counts);
        if self.search.is_none() {
            found.push(format!("no 1:N lists ({} is absent)", self.paths.probes.display()));
        }
        found
    }
}

impl SearchLists {
    /// `None` if the probe list is absent; then a set is meant for 1:1 alone.
    fn read(paths: &MetaPaths, index: &TemplateIndex) -> Result<Option<SearchLists>, EvalError> {
        if !exists(&paths.probes)? {
            return Ok(None);
        }
        let probes = SearchList::read(&paths.probes, index)?;
        let gallery = |(name, path): &(String, PathBuf)| {
            Ok((name.clone(), SearchList::read_gallery(path, index)?))
        };
        let galleries = paths.galleries.iter().map(gallery).collect::<Result<_, EvalError>>()?;
        Ok(Some(SearchLists { galleries, probes }))
    }
}
