//! Opens a data set, walks an epoch, decodes every image, and prints what it saw.
//!
//! `cargo run --release -p pfc-shard --example read -- DATASET [EPOCH]`

// An example prints.
#![allow(clippy::print_stdout)]

use std::{error::Error, path::PathBuf, time::Instant};

use pfc_shard::{Dataset, EpochOrder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: read DATASET [EPOCH]")?);
    let epoch = arguments.next().map_or(Ok(0), |e| e.to_string_lossy().parse())?;

    let dataset = Dataset::open(&dir)?;
    let manifest = dataset.manifest();
    println!("{}: {} images of {} pixels", dir.display(), dataset.len(), manifest.image_size);
    println!("{} identities, packed by {}", dataset.n_identities(), manifest.tool);

    let order = EpochOrder::new(dataset.len(), manifest.seed, epoch);
    let mut pixels = vec![0; manifest.image_size.rgb_bytes()];
    let mut sum = 0u64;
    let start = Instant::now();
    for visit in dataset.faces(order.share(0, 0, 1)) {
        let visit = visit?;
        let (place, face) = (visit.place, visit.face);
        visit
            .decode_rgb(&mut pixels)
            .map_err(|e| format!("row {} ({}): {e}", place.row, face.source))?;
        sum += pixels.iter().map(|&p| u64::from(p)).sum::<u64>();
        if place.position < 3 {
            let name = dataset.identities().name(face.label);
            println!("row {} is {name} ({}), {} bytes", place.row, face.source, face.image.len());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let n_values = dataset.len() as f64 * manifest.image_size.rgb_bytes() as f64;
    println!("mean of all pixels {:.3}", sum as f64 / n_values.max(1.0));
    println!("{:.0} images/s on one core", dataset.len() as f64 / seconds);
    Ok(())
}
