//! Data sets to export.

use std::collections::BTreeMap;

use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Face, IdentityNames, ImageSize,
    Quality,
};

use crate::common::{Bench, jpeg};

/// `data`: eight procedural people with five images each, packed in random order.
pub fn synthetic() -> Bench {
    let bench = Bench::new();
    bench.run("synth faces --identities 8 --images-per-identity 5 --seed 3").success();
    bench.run("pack faces data").success();
    bench
}

/// `data`: rows as given, (label, source), whatever their names; each image differs from the others.
pub fn made(names: &[&str], rows: &[(u32, &str)]) -> Bench {
    let bench = Bench::new();
    let spec = DatasetSpec {
        lineage: vec![],
        image_size: ImageSize::FACE,
        seed: 0,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: vec!["made".into()],
        tool: "test".into(),
        arguments: vec![],
    };
    let mut writer = DatasetWriter::create(&bench.path("data"), spec).unwrap();
    for (i, (label, source)) in rows.iter().enumerate() {
        let image = numbered(i as u8);
        writer
            .push(Face::new(&image, *label, source, ImageSize::FACE, Quality::default()))
            .unwrap();
    }
    writer.finish(names.iter().collect::<IdentityNames>()).unwrap();
    bench
}

/// A crop with its number in a comment behind it, where decoders do not look.
pub fn numbered(i: u8) -> Vec<u8> {
    let mut image = jpeg(112, 112);
    image.extend([0xff, 0xfe, 0, 3, i]);
    image
}

/// The images of a data set as (label, identity), by their bytes.
pub fn images(dataset: &Dataset) -> BTreeMap<Vec<u8>, (u32, String)> {
    let rows = (0..dataset.len()).map(|row| dataset.get(row).unwrap());
    let identity = |label| dataset.identities().name(label).to_owned();
    let images: BTreeMap<_, _> =
        rows.map(|face| (face.image.to_vec(), (face.label, identity(face.label)))).collect();
    assert_eq!(images.len() as u64, dataset.len(), "two rows have the same image");
    images
}
