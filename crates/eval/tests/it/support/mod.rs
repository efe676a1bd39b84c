//! What the tests of the program share: a small model, drawn faces, and the program itself.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use pfc_model::{Backbone, BackboneSpec, Embed, MirroredEmbeddings, ModelError, checkpoint};
use pfc_shard::{DatasetSpec, DatasetWriter, Face, ImageSize, Quality};

/// An embedder that looks at the mean colour of four quarters: mirrored faces differ, and faces
/// of one colour scheme are alike.
#[derive(Debug)]
pub struct Colours;

impl Embed for Colours {
    fn embedding(&self) -> usize {
        12
    }

    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError> {
        let mut out = Vec::with_capacity(n * 12);
        for face in rgb.chunks_exact(112 * 112 * 3) {
            let mut sums = [0.0_f32; 12];
            for (i, &value) in face.iter().enumerate() {
                let (row, column, channel) = (i / 336, i % 336 / 3, i % 3);
                let quarter = 2 * (row / 56) + column / 56;
                sums[quarter * 3 + channel] += f32::from(value) - 127.5;
            }
            out.extend(sums);
        }
        Ok(out)
    }

    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError> {
        let mirrored: Vec<u8> =
            rgb.chunks_exact(336).flat_map(|row| row.rchunks_exact(3).flatten().copied()).collect();
        Ok(MirroredEmbeddings {
            original: self.embed(rgb, n)?,
            mirrored: self.embed(&mirrored, n)?,
        })
    }
}

/// Writes the face of `person`, a colour scheme, with noise of `image`.
pub fn draw_face(path: &Path, person: u32, image: u32, side: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let noise = |x: u32, y: u32| (x * 31 + y * 17 + image * 101) % 60;
    let face = image::RgbImage::from_fn(side, side, |x, y| {
        let quarter = 2 * (y * 2 / side) + x * 2 / side;
        let level = |channel: u32| {
            let key = person * 7919 + quarter * 104_729 + channel * 1_299_709 + 12_345;
            (key.wrapping_mul(2_654_435_761) >> 24) * 3 / 4
        };
        image::Rgb([0, 1, 2].map(|channel| (level(channel) + noise(x, y)).min(255) as u8))
    });
    face.save(path).unwrap();
}

/// A set in LFW's layout, `people` with three images each, and its lists:
/// `pairs.txt` (10 × (2 + 2)) and `single.txt` (10 + 10).
pub struct LfwLike {
    pub dir: tempfile::TempDir,
}

impl LfwLike {
    pub fn new() -> LfwLike {
        let dir = tempfile::tempdir().unwrap();
        for person in 0..20 {
            for image in 1..=3 {
                let path = format!("faces/P{person:02}/P{person:02}_{image:04}.png");
                draw_face(&dir.path().join(path), person, image, 112);
            }
        }
        let mut ten = "10\t2\n".to_owned();
        for fold in 0..10 {
            let (a, b) = (2 * fold, 2 * fold + 1);
            ten += &format!("P{a:02}\t1\t2\nP{b:02}\t2\t3\n");
            ten += &format!("P{a:02}\t1\tP{b:02}\t1\nP{a:02}\t3\tP{:02}\t2\n", (a + 2) % 20);
        }
        let mut single = "10\n".to_owned();
        (0..10).for_each(|p| single += &format!("P{p:02}\t1\t2\n"));
        (0..10).for_each(|p| single += &format!("P{p:02}\t1\tP{:02}\t2\n", p + 1));
        std::fs::write(dir.path().join("pairs.txt"), ten).unwrap();
        std::fs::write(dir.path().join("single.txt"), single).unwrap();
        LfwLike { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A face, by its path below `faces`, as a JPEG.
    pub fn jpeg(&self, source: &str) -> Vec<u8> {
        let face = image::open(self.path(&format!("faces/{source}"))).unwrap().into_rgb8();
        let mut jpeg = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95);
        face.write_with_encoder(encoder).unwrap();
        jpeg
    }

    /// Packs faces into the data set `name`; their sources are their paths below `faces`.
    pub fn pack(&self, name: &str, sources: &[&str]) {
        let jpegs: Vec<(&str, Vec<u8>)> = sources.iter().map(|s| (*s, self.jpeg(s))).collect();
        self.pack_jpegs(name, &jpegs);
    }

    /// Packs images, each with its source, into the data set `name`.
    pub fn pack_jpegs(&self, name: &str, jpegs: &[(&str, Vec<u8>)]) {
        let spec = DatasetSpec {
            lineage: vec![],
            image_size: ImageSize::FACE,
            seed: 1,
            shard_bytes: pfc_shard::DEFAULT_SHARD_BYTES,
            sources: vec!["faces".to_owned()],
            tool: "test".to_owned(),
            arguments: Vec::new(),
        };
        let mut writer = DatasetWriter::create(&self.path(name), spec).unwrap();
        for (source, jpeg) in jpegs {
            writer.push(Face::new(jpeg, 0, source, ImageSize::FACE, Quality::default())).unwrap();
        }
        writer.finish(["anyone"].into_iter().collect()).unwrap();
    }

    /// An untrained MobileFaceNet in the set's folder.
    pub fn model(&self) -> PathBuf {
        self.model_of("run.ckpt", 1)
    }

    /// Another one, with weights drawn by `seed`.
    pub fn model_of(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.path(name);
        let spec = BackboneSpec { network: "mbf".parse().unwrap(), embedding: 32 };
        let backbone = Backbone::new(&spec, tch::Device::Cpu, seed).unwrap();
        let mut writer = checkpoint::Writer::create(&path).unwrap();
        writer.backbone(&backbone).unwrap();
        writer.finish(spec, None).unwrap();
        path
    }
}

/// The program, run in the set's folder with relative paths, so that output can be compared.
pub fn pfc_eval(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("pfc-eval").unwrap();
    command.current_dir(dir).env_remove("PFC_LOG").env("COLUMNS", "100");
    command
}

/// A run that comes to its very end and cannot print what it did: all its files are written, and what it
/// keeps for a run that goes on is still there.
#[cfg(unix)]
pub fn run_without_printing(dir: &Path, args: &[&str]) {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pfc-eval"));
    command.current_dir(dir).args(args).stdout(full).stderr(std::process::Stdio::null());
    assert_eq!(command.status().unwrap().code(), Some(2), "{args:?}");
}

/// Standard error of a run that must fail with exit code 2.
#[track_caller]
pub fn stderr_of_failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "a failed run printed results");
    stderr
}
