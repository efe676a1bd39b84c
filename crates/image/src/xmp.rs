//! The orientation in an XMP packet, which programs for photographs write beside EXIF, or alone.

/// Bytes of a packet that are looked at. Orientation is among what stands first; what may follow, such as a
/// history or a small picture, can be long.
pub const PACKET_BYTES_MAX: usize = 256 << 10;

/// The property, by the prefix that every writer gives its namespace.
const NAME: &[u8] = b"tiff:Orientation";

/// The number of `tiff:Orientation`, written as an attribute or as an element.
pub fn orientation(packet: &[u8]) -> Option<u32> {
    let mut rest = packet.get(..PACKET_BYTES_MAX).unwrap_or(packet);
    while let Some(at) = rest.windows(NAME.len()).position(|found| found == NAME) {
        rest = &rest[at + NAME.len()..];
        let value = value(rest);
        if value.is_some() {
            return value;
        }
    }
    None
}

/// The number that stands behind the name: `="6"`, `='6'` or `>6<`.
fn value(rest: &[u8]) -> Option<u32> {
    let (end, after) = match rest.trim_ascii_start().split_first()? {
        (b'>', after) => (b'<', after),
        (b'=', after) => match after.trim_ascii_start().split_first()? {
            (&quote @ (b'"' | b'\''), after) => (quote, after),
            _ => return None,
        },
        _ => return None,
    };
    let length = after.iter().position(|byte| *byte == end)?;
    let digits = after[..length].trim_ascii();
    let is_number = (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(packet: &str, expected: Option<u32>) {
        assert_eq!(orientation(packet.as_bytes()), expected, "{packet}");
    }

    #[test]
    fn the_number_is_found_as_an_attribute_and_as_an_element() {
        check(r#"<rdf:Description tiff:Make="x" tiff:Orientation="6"/>"#, Some(6));
        check("<rdf:Description tiff:Orientation = '8'>", Some(8));
        check("<tiff:Orientation>3</tiff:Orientation>", Some(3));
        check("<tiff:Orientation>\n 3 </tiff:Orientation>", Some(3));
        check(r#"tiff:Orientation="12""#, Some(12));
    }

    #[test]
    fn what_is_no_number_is_passed_over() {
        check("", None);
        check("tiff:Orientation", None);
        check(r#"tiff:Orientation="6"#, None);
        check(r#"tiff:Orientation="""#, None);
        check(r#"tiff:Orientation="-6""#, None);
        check(r#"tiff:Orientation="66666""#, None);
        check("tiff:Orientation>6", None);
        check("<rdf:li>tiff:Orientation</rdf:li><a tiff:Orientation='6'/>", Some(6));
        check(r#"crs:Orientation="6" tiff:OrientationX="6""#, None);
        let far = [&vec![b' '; PACKET_BYTES_MAX][..], b"tiff:Orientation='6'"].concat();
        assert_eq!(orientation(&far), None);
    }
}
