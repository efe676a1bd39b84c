//! `--scores`: the score of every pair as CSV.

use std::fmt::Write;

use pfc_verify::{Judged, PairsSet};

/// CSV with one line per pair, in the order of the list.
pub fn csv(set: &PairsSet, judged: &Judged) -> String {
    let mut text = "pair,left,right,same,distance,similarity\n".to_owned();
    let similarities = judged.similarities();
    for (i, pair) in set.pairs().iter().enumerate() {
        let (left, right) = (pair.left as usize, pair.right as usize);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{i},{},{},{},{},{}",
            quote(set.image_name(left)),
            quote(set.image_name(right)),
            u8::from(pair.same),
            judged.distances[i],
            similarities[i],
        );
    }
    text
}

/// Quoted where a reader would otherwise split the field (RFC 4180).
fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        assert_eq!(quote("a/b.jpg"), "a/b.jpg");
        assert_eq!(quote("a,\"b\".jpg"), "\"a,\"\"b\"\".jpg\"");
    }
}
