//! Making a written checkpoint visible, and removing those that it replaces.

use pfc_durable::watch::{Done, tell};
use pfc_head::shards::Written;
use pfc_model::{
    BackboneSpec,
    checkpoint::{Progress, Writer},
};

use crate::{TrainError, config::CheckpointConfig, log::metrics, run_folder::RunFolder};

/// What the first rank has to do once every rank has written its files.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) folder: RunFolder,
    pub(super) config: CheckpointConfig,
    pub(super) backbone: BackboneSpec,
    /// Step and accuracy of every measurement so far of the set that `config.best` names.
    pub(super) scores: Vec<(u64, f64)>,
}

impl Publisher {
    /// Gives the checkpoint its name, points links at it and removes old ones. The lines of figures
    /// that it relies on are safe before it can be seen.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; checkpoints that were there are whole.
    pub(super) fn publish(
        &self,
        mut writer: Writer,
        written: &[Written],
        progress: Progress,
    ) -> Result<(), TrainError> {
        metrics::sync(&self.folder.metrics())?;
        let step = progress.step;
        written.iter().for_each(|file| writer.add(file.name(), file.sum()));
        writer.finish(self.backbone, Some(progress))?;
        self.folder.has_saved()?;
        self.folder.point_last_at(step)?;
        let best = self.best()?;
        if let Some(best) = best {
            self.folder.point_best_at(best)?;
        }
        self.prune(best)
    }

    /// The step of the checkpoint that did best on the set in question, the earliest of equals.
    fn best(&self) -> Result<Option<u64>, TrainError> {
        let saved: Vec<u64> =
            self.folder.list_checkpoints()?.into_iter().map(|(step, _)| step).collect();
        let mut best: Option<(u64, f64)> = None;
        for &(step, accuracy) in self.scores.iter().filter(|(step, _)| saved.contains(step)) {
            if best.is_none_or(|(_, most)| accuracy > most) {
                best = Some((step, accuracy));
            }
        }
        Ok(best.map(|(step, _)| step))
    }

    /// Removes all but the newest checkpoints and the best.
    fn prune(&self, best: Option<u64>) -> Result<(), TrainError> {
        let all = self.folder.list_checkpoints()?;
        let old = all.iter().skip(self.config.keep);
        for (step, path) in old.filter(|(step, _)| Some(*step) != best) {
            // Renamed first: a half-removed folder must not look like a checkpoint. What a killed run leaves
            // of it has a name of its own, which is in nobody's way, and goes when the run goes on.
            let doomed = self.folder.unfinished_checkpoint(*step);
            std::fs::rename(path, &doomed).map_err(TrainError::io("rename", path))?;
            tell(Done::Changed(path));
            std::fs::remove_dir_all(&doomed).map_err(TrainError::io("remove", &doomed))?;
            tell(Done::Changed(&doomed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::run::Start;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_had_not_removed_yet_stops_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        folder.begin("", false).unwrap();
        let make = |path: &Path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("manifest.json"), "{}").unwrap();
        };
        // Killed while it removed the checkpoint of step 3.
        make(&folder.unfinished_checkpoint(3));
        [6, 9].iter().for_each(|step| make(&folder.checkpoint(*step)));
        let config = CheckpointConfig { keep: 1, ..CheckpointConfig::default() };
        let backbone = crate::config::Config::default().model.spec();
        let publisher =
            Publisher { folder: folder.without_lock(), config, backbone, scores: Vec::new() };
        publisher.prune(None).unwrap();
        let kept = [".step-00000003.ckpt.tmp", "step-00000009.ckpt"];
        assert_eq!(names(&folder.checkpoints()), kept);
        folder.begin("", true).unwrap();
        assert_eq!(names(&folder.checkpoints()), kept[1..]);
    }
}
