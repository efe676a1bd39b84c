//! What is known of an unfinished `detect`: what is done and how, and the faces of each finished chunk.

use std::io::{self, Write};

use pfc_detect::Face;
use pfc_shard::{Checksum, hash::HashingWriter};
use pfc_sources::Source;
use serde::{Deserialize, Serialize};

use crate::pack::{journal::record::given_differences, quarantine::Line};

/// What is done and how. Two runs with the same record write the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub tool: String,
    pub source: String,
    pub arguments: Vec<String>,
    /// Pictures in the source.
    pub pictures: u64,
    /// Of the names of all identities and pictures.
    pub names: Checksum,
}

impl JobRecord {
    pub fn of(source: &dyn Source, arguments: Vec<String>) -> JobRecord {
        let mut names = HashingWriter::new(io::sink());
        // A sink takes everything.
        let _ = source.write_names(&mut names);
        JobRecord {
            tool: crate::TOOL.into(),
            source: source.name(),
            arguments,
            pictures: source.index().len(),
            names: names.finish().2,
        }
    }

    /// What is not the same in `there`, an earlier record.
    pub fn differences(&self, there: &JobRecord) -> Vec<String> {
        let mut differences = given_differences(
            [&self.tool, &self.source],
            [&there.tool, &there.source],
            [&self.arguments, &there.arguments],
        );
        if differences.is_empty() {
            differences.push("the input has other pictures than before".to_owned());
        }
        differences
    }
}

/// A finished chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkRecord {
    /// The crops, in order.
    pub faces: Vec<FaceRecord>,
    /// The pictures that gave none.
    pub quarantine: Vec<Line>,
}

/// A crop, and where it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaceRecord {
    /// Path of the crop below the folder.
    pub crop: String,
    /// Of the bytes of the crop.
    pub checksum: Checksum,
    /// The picture, as the source calls it.
    pub picture: String,
    pub label: u32,
    /// Which of the faces taken of the picture, from 1.
    pub face: u32,
    pub score: f32,
    pub bounds: [f32; 4],
    pub landmarks: [f32; 10],
    /// Width and height of the picture.
    pub size: [u32; 2],
    pub sharpness: f32,
    /// Yaw, pitch and roll, where the landmarks tell them.
    pub pose: [Option<f64>; 3],
}

/// Names of the columns of the table of faces.
pub const COLUMNS: &str = "crop,image,identity,face,score,left,top,right,bottom,x1,y1,x2,y2,x3,y3,x4,\
                           y4,x5,y5,width,height,sharpness,yaw,pitch,roll";

impl FaceRecord {
    /// * `face`: what was found in the picture called `picture`
    pub fn new(
        crop: String,
        checksum: Checksum,
        picture: &str,
        label: u32,
        number: u32,
        face: &Face,
        size: [u32; 2],
    ) -> FaceRecord {
        let mut landmarks = [0.0; 10];
        landmarks.copy_from_slice(face.detection.landmarks.as_flattened());
        FaceRecord {
            crop,
            checksum,
            picture: picture.to_owned(),
            label,
            face: number,
            score: face.detection.score,
            bounds: face.detection.bounds,
            landmarks,
            size,
            sharpness: face.sharpness,
            pose: [face.pose.yaw, face.pose.pitch, face.pose.roll]
                .map(|angle| Some(angle).filter(|angle| angle.is_finite())),
        }
    }

    /// Writes its line of the table.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn write(&self, identity: &str, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{},{},{}", cell(&self.crop), cell(&self.picture), cell(identity))?;
        write!(out, ",{},{}", self.face, self.score)?;
        for value in self.bounds.iter().chain(&self.landmarks) {
            write!(out, ",{value:.2}")?;
        }
        let [width, height] = self.size;
        let angle = |angle: Option<f64>| angle.map(|a| format!("{a:.1}")).unwrap_or_default();
        let [yaw, pitch, roll] = self.pose.map(angle);
        writeln!(out, ",{width},{height},{:.2},{yaw},{pitch},{roll}", self.sharpness)
    }
}

/// A text as a cell of CSV.
fn cell(text: &str) -> String {
    let is_plain = !text.contains([',', '"', '\n', '\r']) && !text.starts_with(' ');
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_cell_for_each_column_and_names_are_quoted() {
        let record = FaceRecord {
            crop: "a/1.jpg".into(),
            checksum: Checksum(7),
            picture: "a \"b\", c/1.jpg".into(),
            label: 0,
            face: 2,
            score: 0.75,
            bounds: [1.0, 2.0, 3.5, 4.0],
            landmarks: [0.25; 10],
            size: [640, 480],
            sharpness: 9.0,
            pose: [Some(-1.25), Some(2.0), None],
        };
        let mut line = Vec::new();
        record.write("a", &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        let start = "a/1.jpg,\"a \"\"b\"\", c/1.jpg\",a,2,0.75,1.00,2.00,3.50,4.00,0.25,";
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with(",0.25,640,480,9.00,-1.2,2.0,\n"), "{line}");
        // A comma more, which is part of a name.
        assert_eq!(line.matches(',').count(), COLUMNS.matches(',').count() + 1);
    }
}
