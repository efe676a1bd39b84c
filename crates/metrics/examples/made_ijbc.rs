//! Makes up a set of IJB-C's size and layout, for `scripts/bench-ijbc`.
//!
//! `cargo run --release -p pfc-metrics --example made_ijbc -- FOLDER [SHARE]` writes 469,375 faces in
//! 23,124 templates, 15,658,489 pairs and embeddings of 512 numbers, 2 GB in all; SHARE below 1 makes
//! a smaller set of the same shape. The same bytes every time.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a tool for one purpose

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use pfc_random::{GOLDEN_GAMMA, mix};
use rayon::prelude::*;

const DIM: usize = 512;

/// Sizes of the set, all of IJB-C's where the share is 1.
struct Sizes {
    faces: usize,
    galleries: [usize; 2],
    probes: usize,
    pairs: usize,
    genuine: usize,
}

struct Template {
    id: usize,
    subject: usize,
    faces: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("give a folder to write to"));
    let share: f64 = arguments.next().map_or(1.0, |share| share.parse().unwrap());
    let of = |n: usize| (n as f64 * share).round() as usize;
    let sizes = Sizes {
        faces: of(469_375),
        galleries: [of(1_772), of(1_759)],
        probes: of(19_593),
        pairs: of(15_658_489),
        genuine: of(19_557),
    };
    std::fs::create_dir_all(folder.join("meta")).unwrap();
    let (gallery, probes) = templates(&sizes);
    let faces = write_faces(&folder, &sizes, &gallery, &probes);
    write_pairs(&folder, &sizes, &gallery, &probes);
    write_searches(&folder, &sizes, &gallery, &probes);
    write_features(&folder, &faces);
    println!("{}: {} faces, {} pairs", folder.display(), sizes.faces, sizes.pairs);
}

/// A counter-based generator.
fn hashed(i: u64) -> u64 {
    mix(i.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA))
}

fn below(n: usize, i: u64) -> usize {
    ((u128::from(hashed(i)) * n as u128) >> 64) as usize
}

/// One gallery template per subject, then probes of random subjects.
fn templates(sizes: &Sizes) -> (Vec<Template>, Vec<Template>) {
    let n_subjects: usize = sizes.galleries.iter().sum();
    let n_templates = n_subjects + sizes.probes;
    let mut faces = vec![1; n_templates];
    // The rest goes to templates with a few much larger than others, as videos make them.
    for i in 0..sizes.faces - n_templates {
        let at = below(n_templates, 1_000_000_000 + i as u64);
        faces[at * below(100, 2_000_000_000 + i as u64) / 100] += 1;
    }
    let template = |i: usize, subject| Template { id: 3 * i + 1, subject, faces: faces[i] };
    let gallery = (0..n_subjects).map(|i| template(i, i)).collect();
    let probe = |i: usize| template(n_subjects + i, below(n_subjects, 3_000_000_000 + i as u64));
    (gallery, (0..sizes.probes).map(probe).collect())
}

fn writer(folder: &Path, name: &str) -> BufWriter<File> {
    BufWriter::with_capacity(1 << 20, File::create(folder.join("meta").join(name)).unwrap())
}

/// Returns the subject of each face.
fn write_faces(
    folder: &Path,
    sizes: &Sizes,
    gallery: &[Template],
    probes: &[Template],
) -> Vec<usize> {
    let mut places = writer(folder, "ijbc_face_tid_mid.txt");
    let mut points = writer(folder, "ijbc_name_5pts_score.txt");
    let mut subjects = Vec::with_capacity(sizes.faces);
    for template in gallery.iter().chain(probes) {
        for i in 0..template.faces {
            let face = subjects.len() + 1;
            // Stills first, then frames of videos of about seven.
            let media = 1000 * template.id + if i < 2 { i } else { 2 + i / 7 };
            writeln!(places, "{face}.jpg {} {media}", template.id).unwrap();
            let score = 0.9 + 0.1 * (below(1000, face as u64) as f64 / 1000.0);
            writeln!(
                points,
                "{face}.jpg 45.1 63.7 87.3 57.6 70.5 76.8 50.8 101.5 91.1 94.4 {score:.3}"
            )
            .unwrap();
            subjects.push(template.subject);
        }
    }
    subjects
}

fn write_pairs(folder: &Path, sizes: &Sizes, gallery: &[Template], probes: &[Template]) {
    let mut out = writer(folder, "ijbc_template_pair_label.txt");
    for probe in probes.iter().take(sizes.genuine) {
        writeln!(out, "{} {} 1", gallery[probe.subject].id, probe.id).unwrap();
    }
    let (mut written, mut i) = (sizes.genuine.min(probes.len()), 0);
    while written < sizes.pairs {
        let probe = &probes[below(probes.len(), 4_000_000_000 + i)];
        let other = below(gallery.len(), 5_000_000_000 + i);
        i += 1;
        if other != probe.subject {
            writeln!(out, "{} {} 0", gallery[other].id, probe.id).unwrap();
            written += 1;
        }
    }
}

fn write_searches(folder: &Path, sizes: &Sizes, gallery: &[Template], probes: &[Template]) {
    let (first, second) = gallery.split_at(sizes.galleries[0]);
    for (name, list) in [("gallery_G1", first), ("gallery_G2", second), ("probe_mixed", probes)] {
        let mut out = writer(folder, &format!("ijbc_1N_{name}.csv"));
        writeln!(out, "TEMPLATE_ID,SUBJECT_ID,FILENAME").unwrap();
        for template in list {
            writeln!(out, "{},{},img/{}.jpg", template.id, template.subject, template.id).unwrap();
        }
    }
}

/// A face is its subject's direction plus noise; its mirror image has a little more noise.
fn write_features(folder: &Path, subjects: &[usize]) {
    let row_bytes = DIM * 4;
    let array = subjects.len() * row_bytes;
    let shape = format!("\"dtype\":\"F32\",\"shape\":[{},{DIM}]", subjects.len());
    let mut header = format!(
        "{{\"embs\":{{{shape},\"data_offsets\":[0,{array}]}},\
         \"embs_f\":{{{shape},\"data_offsets\":[{array},{}]}}}}",
        2 * array
    );
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut out = BufWriter::new(File::create(folder.join("features.safetensors")).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    let uniform = |i: u64| (hashed(i) >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    for mirror in [0, 1] {
        for (block, subjects) in subjects.chunks(4096).enumerate() {
            let rows: Vec<Vec<u8>> = subjects
                .par_iter()
                .enumerate()
                .map(|(i, &subject)| {
                    let face = (block * 4096 + i) as u64;
                    let value = |d: u64| {
                        let own = uniform((face << 10) + d + (1 << 40));
                        let flip = uniform((face << 10) + d + (1 << 41)) * 0.3 * mirror as f32;
                        uniform(((subject as u64) << 10) + d) + 1.6 * own + flip
                    };
                    (0..DIM as u64).flat_map(|d| value(d).to_le_bytes()).collect()
                })
                .collect();
            rows.iter().for_each(|row| out.write_all(row).unwrap());
        }
    }
    out.flush().unwrap();
}
