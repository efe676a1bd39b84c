//! The files of a synthetic folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use pfc_cli::{Progress, interrupt};
use pfc_durable::{Access, DurableError, OwnedDir};
use pfc_random::Stream;
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    SynthError,
    camera::{photograph, photograph_at_quality},
    junk,
    pairs::{self, Person},
    plan::{Damage, Fault, Noise, Plan, World},
};

/// What was made, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Images in all.
    pub images: u64,
    /// Identities to train on.
    pub identities: u64,
    /// Identities to test with.
    pub holdout_identities: u64,
    /// Images that show someone else.
    pub mislabelled: u64,
    /// Images that repeat another one.
    pub duplicated: u64,
    /// Files that cannot be decoded.
    pub corrupt: u64,
    /// Images that show nobody.
    pub junk: u64,
    /// Identities with two folders.
    pub split_identities: u64,
    /// Folders to train on that show somebody held out.
    pub hidden_identities: u64,
    /// Verification pairs.
    pub pairs: u64,
    /// Time that it took.
    pub seconds: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// `synth.json`: the truth about a synthetic folder.
#[derive(Serialize)]
struct Truth {
    format: u32,
    seed: u64,
    identities: u64,
    images_per_identity: u64,
    holdout_identities: u64,
    noise: Noise,
    faults: Vec<FaultTruth>,
    /// People with two folders.
    splits: Vec<SplitTruth>,
    /// Folders to train on that show somebody held out.
    hidden: Vec<HiddenTruth>,
}

#[derive(Serialize)]
struct SplitTruth {
    identity: String,
    other: String,
}

#[derive(Serialize)]
struct HiddenTruth {
    identity: String,
    shows: String,
}

#[derive(Serialize)]
struct FaultTruth {
    path: String,
    fault: &'static str,
    /// Who a mislabelled image shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    shows: Option<String>,
    /// Which image a duplicate repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    /// `same_bytes`, `re_encoded`, or the kind of damage.
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'static str>,
}

/// Makes `out`, which appears once it is complete.
///
/// # Errors
///
/// [`SynthError`] if `out` holds something, the pairs cannot be had, the user interrupts, or a
/// write fails.
pub fn write(
    out: &Path,
    world: World,
    noise: Noise,
    n_pairs: Option<u64>,
    quiet: bool,
) -> Result<Summary, SynthError> {
    let started = Instant::now();
    let owned = OwnedDir::claim(out, Access::Alone)?;
    owned.check_free()?;
    let unfinished = owned.begin()?;
    let folder = Folder { world, plan: Plan::new(world, noise) };
    let pairs =
        n_pairs.map(|n| pairs::list(&folder.people_for_pairs(), n, world.seed)).transpose()?;
    folder.write_images(unfinished.path(), quiet)?;
    if let Some(pairs) = pairs {
        save(&unfinished.path().join("pairs.txt"), pairs.as_bytes())?;
    }
    save(&unfinished.path().join("synth.json"), &folder.truth(noise))?;
    unfinished.commit()?;
    Ok(folder.summary(n_pairs.unwrap_or(0), started.elapsed().as_secs_f64()))
}

struct Folder {
    world: World,
    plan: Plan,
}

impl Folder {
    fn write_images(&self, root: &Path, quiet: bool) -> Result<(), SynthError> {
        let World { identities, holdout, images, .. } = self.world;
        let people = identities + holdout;
        let splits =
            (0..self.plan.splits().len()).map(|i| self.training_folder(self.split_name(i)));
        let hidden = (0..self.world.hidden).map(|i| self.training_folder(self.hidden_name(i)));
        for folder in (0..people).map(|i| self.folder_of(i)).chain(splits).chain(hidden) {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(DurableError::at("create", &folder))?;
        }
        // The hidden people come last, as if they were further ones.
        let total = (people + self.world.hidden) * images;
        let progress = Progress::new("synth", "images", total, quiet);
        let written = (0..total).into_par_iter().try_for_each(|slot| {
            if interrupt::requested() {
                return Err(SynthError::Interrupted { total });
            }
            let (identity, image) = (slot / images, slot % images);
            let (path, content) = match identity.checked_sub(people) {
                None => (self.path(identity, image), self.content(identity, image)),
                Some(i) => (self.hidden_path(i, image), self.hidden_content(i, image)),
            };
            save(&root.join(path), &content)?;
            progress.add(1);
            Ok(())
        });
        progress.finish();
        written
    }

    /// The bytes of one file.
    fn content(&self, identity: u64, image: u64) -> Vec<u8> {
        let World { seed, images, .. } = self.world;
        match self.fault_of(identity, image) {
            None => photograph(seed, identity, image),
            // A picture that no file of the other person shows.
            Some(Fault::Mislabelled { shows }) => {
                photograph(seed, shows, images + identity * images + image)
            }
            Some(Fault::Duplicated { of, same_bytes: true }) => photograph(seed, identity, of),
            Some(Fault::Duplicated { of, same_bytes: false }) => {
                photograph_at_quality(seed, identity, of, 50)
            }
            Some(Fault::Corrupt(damage)) => {
                let mut draw = Stream::new(&[seed, identity, image, 0xbad]);
                spoil(photograph(seed, identity, image), damage, &mut draw)
            }
            Some(Fault::Junk(kind)) => {
                let mut draw = Stream::new(&[seed, identity, image, 0x7a5]);
                junk::spoil(&photograph(seed, identity, image), kind, &mut draw)
            }
        }
    }

    /// A picture of held-out person `i` that no other file shows.
    fn hidden_content(&self, i: u64, image: u64) -> Vec<u8> {
        let World { seed, identities, images, .. } = self.world;
        photograph(seed, identities + i, images * (identities + 1) + image)
    }

    fn hidden_path(&self, i: u64, image: u64) -> PathBuf {
        let name = self.hidden_name(i);
        self.training_folder(name.clone()).join(format!("{name}_{:04}.jpg", image + 1))
    }

    fn split_name(&self, i: usize) -> String {
        name(self.world.identities + self.world.holdout + i as u64)
    }

    fn hidden_name(&self, i: u64) -> String {
        self.split_name(self.plan.splits().len() + i as usize)
    }

    fn training_folder(&self, name: String) -> PathBuf {
        if self.world.holdout == 0 { name.into() } else { Path::new("train").join(name) }
    }

    fn fault_of(&self, identity: u64, image: u64) -> Option<Fault> {
        let is_training = identity < self.world.identities;
        is_training.then(|| self.plan.fault(identity, image)).flatten()
    }

    /// Those to be verified: the held-out people, or, without any, the sound images of the others.
    fn people_for_pairs(&self) -> Vec<Person> {
        let World { identities, holdout, images, .. } = self.world;
        let people = if holdout > 0 { identities..identities + holdout } else { 0..identities };
        let sound = |identity| {
            (0..images)
                .filter(|&i| {
                    self.fault_of(identity, i).is_none()
                        && self.plan.split_of(identity, i).is_none()
                })
                .collect::<Vec<_>>()
        };
        people.map(|i| Person { name: name(i), images: sound(i) }).collect()
    }

    fn folder_of(&self, identity: u64) -> PathBuf {
        let World { identities, holdout, .. } = self.world;
        match (holdout, identity < identities) {
            (0, _) => name(identity).into(),
            (_, true) => Path::new("train").join(name(identity)),
            (_, false) => Path::new("test").join(name(identity)),
        }
    }

    fn path(&self, identity: u64, image: u64) -> PathBuf {
        if let Some(i) = self.plan.split_of(identity, image) {
            let name = self.split_name(i);
            return self.training_folder(name.clone()).join(format!("{name}_{:04}.jpg", image + 1));
        }
        self.folder_of(identity).join(format!("{}_{:04}.jpg", name(identity), image + 1))
    }

    fn truth(&self, noise: Noise) -> Vec<u8> {
        let path = |identity, image| self.path(identity, image).to_string_lossy().into_owned();
        let faults = self.plan.faults().map(|(identity, image, fault)| {
            let mut truth = FaultTruth {
                path: path(identity, image),
                fault: "corrupt",
                shows: None,
                of: None,
                how: None,
            };
            match fault {
                Fault::Mislabelled { shows } => {
                    (truth.fault, truth.shows) = ("mislabelled", Some(name(shows)));
                }
                Fault::Duplicated { of, same_bytes } => {
                    (truth.fault, truth.of) = ("duplicated", Some(path(identity, of)));
                    truth.how = Some(if same_bytes { "same_bytes" } else { "re_encoded" });
                }
                Fault::Corrupt(damage) => truth.how = Some(damage.name()),
                Fault::Junk(kind) => (truth.fault, truth.how) = ("junk", Some(kind.name())),
            }
            truth
        });
        let truth = Truth {
            format: 1,
            seed: self.world.seed,
            identities: self.world.identities,
            images_per_identity: self.world.images,
            holdout_identities: self.world.holdout,
            noise,
            faults: faults.collect(),
            splits: (0..)
                .zip(self.plan.splits())
                .map(|(i, &identity)| SplitTruth {
                    identity: name(identity),
                    other: self.split_name(i),
                })
                .collect(),
            hidden: (0..self.world.hidden)
                .map(|i| HiddenTruth {
                    identity: self.hidden_name(i),
                    shows: name(self.world.identities + i),
                })
                .collect(),
        };
        let mut text = serde_json::to_vec_pretty(&truth).expect("numbers and strings become JSON");
        text.push(b'\n');
        text
    }

    fn summary(&self, pairs: u64, seconds: f64) -> Summary {
        let World { identities, holdout, images, .. } = self.world;
        let all = (identities + holdout + self.world.hidden) * images;
        let count = |is: fn(&Fault) -> bool| self.plan.faults().filter(|f| is(&f.2)).count() as u64;
        Summary {
            images: all,
            identities,
            holdout_identities: holdout,
            mislabelled: count(|f| matches!(f, Fault::Mislabelled { .. })),
            duplicated: count(|f| matches!(f, Fault::Duplicated { .. })),
            corrupt: count(|f| matches!(f, Fault::Corrupt(_))),
            junk: count(|f| matches!(f, Fault::Junk(_))),
            split_identities: self.plan.splits().len() as u64,
            hidden_identities: self.world.hidden,
            pairs,
            seconds,
            images_per_second: all as f64 / seconds.max(1e-9),
        }
    }
}

impl Damage {
    fn name(self) -> &'static str {
        match self {
            Damage::Truncated => "truncated",
            Damage::Empty => "empty",
            Damage::BrokenHeader => "broken_header",
            Damage::Text => "text",
        }
    }
}

fn spoil(mut jpeg: Vec<u8>, damage: Damage, draw: &mut Stream) -> Vec<u8> {
    match damage {
        Damage::Truncated => jpeg.truncate((jpeg.len() as f32 * draw.between(0.1, 0.9)) as usize),
        Damage::Empty => jpeg.clear(),
        // The start-of-image marker stays, so that it still looks like a JPEG.
        Damage::BrokenHeader => jpeg[3..40].fill(0),
        Damage::Text => jpeg = b"<html><body>404 Not Found</body></html>\n".to_vec(),
    }
    jpeg
}

/// As LFW names people.
fn name(identity: u64) -> String {
    format!("Person_{identity:06}")
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    Ok(fs::write(path, bytes).map_err(DurableError::at("write", path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_is_refused_by_the_decoder() {
        let limits = pfc_image::Limits { pixels_max: 1 << 20 };
        for damage in [Damage::Truncated, Damage::Empty, Damage::BrokenHeader, Damage::Text] {
            for image in 0..5 {
                let mut draw = Stream::new(&[image]);
                let bytes = spoil(photograph(0, 0, image), damage, &mut draw);
                assert!(pfc_image::decode(&bytes, limits).is_err(), "{damage:?}");
            }
        }
    }

    #[test]
    fn held_out_people_are_in_a_folder_of_their_own() {
        let world = World { seed: 0, identities: 2, holdout: 1, images: 1, hidden: 0 };
        let folder = Folder { world, plan: Plan::new(world, Noise::default()) };
        let path = |identity| folder.path(identity, 0).to_string_lossy().into_owned();
        assert_eq!(path(1), "train/Person_000001/Person_000001_0001.jpg");
        assert_eq!(path(2), "test/Person_000002/Person_000002_0001.jpg");
        assert_eq!(folder.people_for_pairs().len(), 1);
    }
}
