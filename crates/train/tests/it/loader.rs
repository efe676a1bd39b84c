//! Batches are a function of their step: not of threads, of queue length, or of where a run began.

use std::sync::Arc;

use pfc_findings::{Reading, View};
use pfc_image::{ImageSize, decode_rgb, normalise};
use pfc_shard::{QualitySpec, ShardError};
use pfc_train::{
    LoadError, TrainError,
    config::{DataConfig, OnError},
    data::{
        loader::{Batch, Loader, LoaderSpec},
        plan::StepPlan,
        source::Source,
    },
};
use tch::Device;

fn dataset() -> (tempfile::TempDir, Arc<View>) {
    let dir = tempfile::tempdir().unwrap();
    crate::support::write_dataset(dir.path(), 5, 5);
    let dataset = View::open(dir.path(), Reading::Decided).unwrap();
    (dir, Arc::new(dataset))
}

fn spec(n_threads: usize, n_ahead: usize, first_step: u64) -> LoaderSpec {
    let plan = StepPlan { n_images: 25, batch_size: 4, epochs: 2, steps: 0, seed: 3 };
    LoaderSpec {
        plan,
        rank: 0,
        world: 1,
        first_step,
        n_threads,
        n_ahead,
        mirror: true,
        on_error: OnError::Stop,
        device: Device::Cpu,
        as_bytes: false,
    }
}

/// Every batch from the spec's first step to the last.
fn batches(source: impl Into<Source>, spec: LoaderSpec) -> Vec<Batch> {
    let mut loader = Loader::start(source, spec).unwrap();
    let mut found = Vec::new();
    for _ in spec.first_step..spec.plan.n_steps() {
        let batch = loader.next_batch().unwrap();
        let Batch { images, labels, replaced } = &batch;
        let (images, labels) = (images.copy(), labels.clone());
        found.push(Batch { images, labels, replaced: replaced.clone() });
        loader.recycle(batch);
    }
    assert!(matches!(loader.next_batch(), Err(LoadError::Ended)));
    found
}

#[test]
fn batches_are_the_same_for_any_number_of_threads_and_any_queue() {
    let (_dir, dataset) = dataset();
    let one = batches(Arc::clone(&dataset), spec(1, 1, 0));
    assert_eq!(one.len(), 12);
    for (n_threads, n_ahead) in [(2, 1), (2, 3), (4, 8)] {
        let other = batches(Arc::clone(&dataset), spec(n_threads, n_ahead, 0));
        assert!(one == other, "{n_threads} threads, {n_ahead} ahead");
    }
}

#[test]
fn a_loader_that_starts_late_gives_what_one_from_the_start_gives_then() {
    let (_dir, dataset) = dataset();
    let all = batches(Arc::clone(&dataset), spec(2, 2, 0));
    for first in [1, 5, 6, 11] {
        assert!(
            all[first..] == batches(Arc::clone(&dataset), spec(2, 2, first as u64)),
            "from {first}"
        );
    }
}

#[test]
fn a_batch_holds_the_rows_of_its_plan_mirrored_and_normalised() {
    let (_dir, dataset) = dataset();
    let spec = spec(1, 1, 0);
    let batch = batches(Arc::clone(&dataset), spec).swap_remove(7);
    let n = ImageSize::FACE.rgb_bytes();
    let images = Vec::<f32>::try_from(batch.images.reshape([-1])).unwrap();
    for (i, place) in spec.plan.places(7).enumerate() {
        let face = dataset.get(place.row).unwrap();
        let (mut rgb, mut expected) = (vec![0; n], vec![0.0; n]);
        decode_rgb(face.image, ImageSize::FACE, &mut rgb).unwrap();
        normalise(&rgb, 112, place.mirror, &mut expected);
        assert!(images[i * n..(i + 1) * n] == expected[..], "image {i}");
        assert_eq!(batch.labels[i], i64::from(face.label));
    }
}

/// A measure of quality by row, beside the data set.
fn measure(dir: &std::path::Path, value: impl Fn(u64) -> f32) {
    let spec = QualitySpec { columns: vec!["q".to_owned()], made_by: Vec::new() };
    let rows = (0..25).map(|row| Ok::<_, ShardError>(vec![value(row)]));
    spec.write(dir, 25, rows).unwrap();
}

/// Every batch of the data set in `dir`, drawn by the measure.
fn drawn(dir: &std::path::Path, n_threads: usize) -> Result<Vec<Batch>, Box<TrainError>> {
    let config =
        DataConfig { path: dir.to_owned(), weights: "quality:q".into(), ..DataConfig::default() };
    config.validate().map_err(TrainError::from)?;
    Ok(batches(Source::open(&config)?, spec(n_threads, 3, 0)))
}

#[test]
fn images_are_drawn_in_proportion_to_a_measure() {
    let (dir, dataset) = dataset();
    // All alike: each once an epoch, as without weights.
    measure(dir.path(), |_| 0.5);
    assert!(drawn(dir.path(), 1).unwrap() == batches(Arc::clone(&dataset), spec(1, 1, 0)));
    // Nobody but the third person.
    let label = |row| dataset.get(row).unwrap().label;
    measure(dir.path(), |row| if label(row) == 2 { 1.0 } else { 0.0 });
    let one = drawn(dir.path(), 1).unwrap();
    assert!(one.iter().all(|batch| batch.labels == [2; 4]));
    assert!(one == drawn(dir.path(), 3).unwrap());
    // The first person five times as often as each other: five images of nine.
    measure(dir.path(), |row| if label(row) == 0 { 5.0 } else { 1.0 });
    let all = drawn(dir.path(), 2).unwrap();
    let n_first = all.iter().flat_map(|batch| &batch.labels).filter(|label| **label == 0).count();
    // Of 48 images 26.7; two epochs, each short of one draw, and with two ends at most per image.
    assert!((20..=33).contains(&n_first), "{n_first}");
}

#[test]
fn weights_that_cannot_be_drawn_by_are_refused_before_the_run() {
    let (dir, _dataset) = dataset();
    let refused = |expected: &str| {
        let error = drawn(dir.path(), 1).unwrap_err();
        let text = format!(
            "{error}: {}",
            std::error::Error::source(&error).map_or(String::new(), |e| e.to_string())
        );
        assert!(text.contains(expected), "{text}");
    };
    refused("its quality has not been measured");
    measure(dir.path(), |row| 3.0 - row as f32);
    refused("row 4 has the weight -1, and weights are 0 or more");
    measure(dir.path(), |_| 0.0);
    refused("no row has a weight above 0");
    for wrong in ["fiqa", "quality:", "quality"] {
        let config = DataConfig {
            path: dir.path().to_owned(),
            weights: wrong.into(),
            ..DataConfig::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("data.weights is "), "{error}");
    }
}

#[test]
fn images_that_stay_bytes_become_the_same_numbers_where_the_step_computes() {
    let (_dir, dataset) = dataset();
    let as_bytes = batches(Arc::clone(&dataset), LoaderSpec { as_bytes: true, ..spec(2, 2, 0) });
    for (bytes, numbers) in as_bytes.iter().zip(batches(Arc::clone(&dataset), spec(2, 2, 0))) {
        assert_eq!(bytes.images.kind(), tch::Kind::Uint8);
        assert_eq!(bytes.labels, numbers.labels);
        let [found, expected] = [&bytes.images, &numbers.images]
            .map(|images| pfc_train::step::images_on(Device::Cpu, images).unwrap());
        assert_eq!((found.kind(), found.size()), (tch::Kind::Float, vec![4, 3, 112, 112]));
        assert!(found == expected);
    }
}

#[test]
fn a_loader_dropped_half_way_ends_its_threads() {
    let (_dir, dataset) = dataset();
    let mut loader = Loader::start(Arc::clone(&dataset), spec(4, 2, 0)).unwrap();
    let held = loader.next_batch().unwrap();
    drop(loader);
    assert_eq!(held.labels.len(), 4);
    // Every thread held the data set.
    assert_eq!(Arc::strong_count(&dataset), 1);
}
