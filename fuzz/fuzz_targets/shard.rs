//! A data set of which one file is replaced or damaged: every reader says so, none panics.
//!
//! The first byte chooses the file and how; the rest is its new content, or places and values of
//! bytes to change in the sound one. The manifest is adapted, so that the reader gets past sizes and
//! checksums.

#![no_main]

use std::{cell::OnceCell, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use pfc_shard::{
    Checksum, DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, EpochOrder, Face,
    IDENTITIES_FILE, ImageSize, MANIFEST_FILE, Manifest, Quality, hash::content_hash, shard_file,
    verify,
};
use tempfile::TempDir;

const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

struct Sound {
    dir: TempDir,
    /// Name and content of the three files.
    files: [(String, Vec<u8>); 3],
}

thread_local! {
    static SOUND: OnceCell<Sound> = const { OnceCell::new() };
}

fn sound() -> Sound {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let grey: Vec<u8> = (0..16 * 8).map(|i| (i * 37 % 256) as u8).collect();
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.encode(&grey, 16, 8, jpeg_encoder::ColorType::Luma).expect("a small image");
    let spec = DatasetSpec {
        lineage: vec![],
        image_size: SIZE,
        seed: 1,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: vec!["raw".into()],
        tool: "fuzz".into(),
        arguments: vec![],
    };
    let mut writer = DatasetWriter::create(dir.path(), spec).expect("an empty folder");
    for label in [0, 1, 1] {
        let face = Face::new(&jpeg, label, "a/1.jpg", SIZE, Quality::default());
        writer.push(face).expect("a sound row");
    }
    writer.finish(["ann", "bob"].into_iter().collect()).expect("a sound data set");
    let files = [MANIFEST_FILE.to_owned(), IDENTITIES_FILE.to_owned(), shard_file(0)];
    let files = files.map(|name| {
        let bytes = fs::read(dir.path().join(&name)).expect("just written");
        (name, bytes)
    });
    Sound { dir, files }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    SOUND.with(|cell| {
        let sound = cell.get_or_init(sound);
        let which = usize::from(choice % 3);
        let content = match choice & 0x80 {
            0 => rest.to_vec(),
            _ => damaged(&sound.files[which].1, rest),
        };
        let dir = sound.dir.path();
        replace(dir, &sound.files[which].0, &content);
        if which > 0 {
            replace(dir, MANIFEST_FILE, &adapted(&sound.files[0].1, which, &content));
        }
        read(dir);
        for (name, bytes) in &sound.files {
            replace(dir, name, bytes);
        }
    });
});

/// Four bytes of place and one of value each.
fn damaged(sound: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for change in changes.as_chunks::<5>().0 {
        let [a, b, c, d, value] = *change;
        let place = u32::from_le_bytes([a, b, c, d]) as usize % bytes.len();
        bytes[place] = value;
    }
    bytes
}

/// The manifest with the size and checksum of the changed file.
fn adapted(manifest: &[u8], which: usize, content: &[u8]) -> Vec<u8> {
    let mut manifest: Manifest = serde_json::from_slice(manifest).expect("a sound manifest");
    let (bytes, checksum) = (content.len() as u64, Checksum(content_hash(content)));
    if which == 1 {
        (manifest.identities.bytes, manifest.identities.checksum) = (bytes, checksum);
    } else {
        (manifest.shards[0].bytes, manifest.shards[0].checksum) = (bytes, checksum);
    }
    serde_json::to_vec(&manifest).expect("a manifest becomes JSON")
}

/// A new file under the old name, as the format demands: a map of the old one stays whole.
fn replace(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    fs::write(path, bytes).expect("a temporary folder");
}

fn read(dir: &Path) {
    let _ = verify(dir, |_| ());
    let Ok(dataset) = Dataset::open(dir) else { return };
    for label in 0..dataset.n_identities().min(10) {
        let _ = (dataset.identities().name(label), dataset.identities().n_images(label));
        let _ = dataset.rows_of(label);
    }
    let preloaded = dataset.preload().is_ok();
    // A manifest may claim any number of rows; the walk is bounded, its order is not.
    let order = EpochOrder::new(dataset.len(), 1, 0);
    let mut pixels = vec![0; SIZE.rgb_bytes()];
    for visit in dataset.faces(order.share(0, 0, 1)).take(10) {
        assert!(visit.is_ok() || !preloaded, "a row of a preloaded data set cannot be read");
        if let Ok(visit) = visit {
            let _ = visit.decode_rgb(&mut pixels);
            assert!(visit.face.label < dataset.n_identities());
        }
    }
}
