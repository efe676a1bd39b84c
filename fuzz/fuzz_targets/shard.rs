//! A data set of which one file is replaced or damaged: every reader says so, none panics.
//!
//! The first byte chooses the file and how; the rest is its new content, or places and values of
//! bytes to change in the sound one. The manifest is adapted, so that the reader gets past sizes and
//! checksums.

#![no_main]

use std::{cell::OnceCell, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use pfc_shard::{
    Checksum, DEFAULT_SHARD_BYTES, DETECTIONS_FILE, Dataset, DatasetSpec, DatasetWriter,
    Detections, EpochOrder, Face, IDENTITIES_FILE, ImageSize, MANIFEST_FILE, Manifest, QUALITY_DIR,
    Quality, QualitySpec, QualityTable, ShardError, hash::content_hash, shard_file, verify,
    write_detections,
};
use tempfile::TempDir;

const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

struct Sound {
    dir: TempDir,
    /// Name and content of the files: manifest, identities, shard, detections, the record of the measures of
    /// quality, and their table.
    files: [(String, Vec<u8>); 6],
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
    let rows = (0..3).map(|i| Ok::<_, ShardError>([i as f32; 15]));
    write_detections(dir.path(), 3, rows).expect("sound detections");
    let mut writer = DatasetWriter::create(dir.path(), spec).expect("an empty folder");
    for label in [0, 1, 1] {
        let face = Face::new(&jpeg, label, "a/1.jpg", SIZE, Quality::default());
        writer.push(face).expect("a sound row");
    }
    writer.finish(["ann", "bob"].into_iter().collect()).expect("a sound data set");
    let spec = QualitySpec { columns: vec!["a".into(), "b".into()], made_by: vec!["fuzz".into()] };
    let rows = (0..3).map(|i| Ok::<_, ShardError>(vec![i as f32; 2]));
    spec.write(dir.path(), 3, rows).expect("sound measures");
    let names = fs::read_dir(dir.path().join(QUALITY_DIR)).expect("just made");
    let mut names: Vec<String> = names
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a hash"))
        .map(|name| format!("{QUALITY_DIR}/{name}"))
        .collect();
    // The record begins with an m, which no hash does.
    names.sort();
    let [table, record] = names.try_into().expect("a table and its record");
    let files = [
        MANIFEST_FILE.to_owned(),
        IDENTITIES_FILE.to_owned(),
        shard_file(0),
        DETECTIONS_FILE.to_owned(),
        record,
        table,
    ];
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
        let which = usize::from(choice % 6);
        let content = match choice & 0x80 {
            0 => rest.to_vec(),
            _ => damaged(&sound.files[which].1, rest),
        };
        let dir = sound.dir.path();
        replace(dir, &sound.files[which].0, &content);
        match which {
            1..=3 => replace(dir, MANIFEST_FILE, &adapted(&sound.files[0].1, which, &content)),
            // Behind the first line, which is its checksum.
            4 => replace(dir, &sound.files[4].0, &sealed(&content)),
            5 => {
                let name = format!("{QUALITY_DIR}/{:032x}.npy", content_hash(&content));
                replace(dir, &name, &content);
                replace(dir, &sound.files[4].0, &with_table(&sound.files[4].1, &content));
                read(dir);
                let _ = fs::remove_file(dir.join(name));
            }
            _ => {}
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
    match which {
        1 => (manifest.identities.bytes, manifest.identities.checksum) = (bytes, checksum),
        2 => (manifest.shards[0].bytes, manifest.shards[0].checksum) = (bytes, checksum),
        _ => (manifest.others[0].bytes, manifest.others[0].checksum) = (bytes, checksum),
    }
    serde_json::to_vec(&manifest).expect("a manifest becomes JSON")
}

/// A record of measures with the checksum that belongs to it.
fn sealed(content: &[u8]) -> Vec<u8> {
    let end = content.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let json = &content[end..];
    [format!("{}\n", Checksum(content_hash(json))).as_bytes(), json].concat()
}

/// The record of the measures with the checksum of the changed table.
fn with_table(record: &[u8], table: &[u8]) -> Vec<u8> {
    let json = record.splitn(2, |byte| *byte == b'\n').nth(1).expect("a sealed record");
    let mut record: serde_json::Value = serde_json::from_slice(json).expect("a sound record");
    record["checksum"] = Checksum(content_hash(table)).to_string().into();
    sealed(format!("\n{record}").as_bytes())
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
    let n_rows = dataset.len();
    if let Ok(Some(found)) = Detections::open(dir, dataset.manifest()) {
        assert!((0..n_rows).all(|row| found.get(row).is_ok()) && found.get(n_rows).is_err());
    }
    if let Ok(Some(table)) = QualityTable::open(dir) {
        for column in &table.record().columns {
            assert_eq!(table.column(column).map_or(0, |c| c.len() as u64), table.record().rows);
        }
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
