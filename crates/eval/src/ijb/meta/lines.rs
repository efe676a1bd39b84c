//! Lines of a meta list, with their place for errors.

use std::path::Path;

use rayon::prelude::*;

use crate::EvalError;

/// Bytes that one thread parses at a time.
const PIECE: usize = 1 << 20;

/// Parses every line that is not blank, on all threads; results are in order.
///
/// `parse` gets the line without its end and answers with what is wrong with it otherwise.
///
/// # Errors
///
/// [`EvalError::Verify`] for the first bad line.
pub(super) fn parse<T: Send>(
    path: &Path,
    bytes: &[u8],
    layout: &'static str,
    parse: impl Fn(&str) -> Result<T, String> + Sync,
) -> Result<Vec<T>, EvalError> {
    let pieces = pieces(bytes);
    let parsed: Vec<Result<Vec<T>, (usize, String)>> =
        pieces.par_iter().map(|piece| parse_piece(piece, &parse)).collect();
    let mut all = Vec::with_capacity(parsed.iter().flatten().map(Vec::len).sum());
    for (i, result) in parsed.into_iter().enumerate() {
        match result {
            Ok(lines) => all.extend(lines),
            Err((local, problem)) => {
                let newlines = |piece: &&[u8]| piece.iter().filter(|&&b| b == b'\n').count();
                let line = pieces[..i].iter().map(newlines).sum::<usize>() + local;
                return Err(EvalError::line(path, line, problem, layout));
            }
        }
    }
    Ok(all)
}

/// Number, from 1, of the line that the result at `index` came from.
pub(super) fn line_of(bytes: &[u8], index: usize) -> usize {
    let lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    let mut filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled.nth(index).map_or_else(|| last_line(bytes), |(number, _)| number)
}

/// The line after the last one with content, where a list is too short.
fn last_line(bytes: &[u8]) -> usize {
    let text = bytes.trim_ascii_end();
    text.iter().filter(|&&byte| byte == b'\n').count() + 1 + usize::from(!text.is_empty())
}

/// A number of a field, or what is wrong with it.
pub(super) fn number<T: std::str::FromStr>(field: &str, what: &str) -> Result<T, String> {
    field.parse().map_err(|_| format!("the {what} is `{}`, which is no number", shown(field)))
}

/// A hostile field may be as long as its file.
pub(super) fn shown(field: &str) -> String {
    match field.char_indices().nth(40) {
        None => field.to_owned(),
        Some((end, _)) => format!("{}…", &field[..end]),
    }
}

/// Cuts at line ends.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let from = PIECE.min(rest.len()) - 1;
        let end =
            rest[from..].iter().position(|&b| b == b'\n').map_or(rest.len(), |i| from + i + 1);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The place of an error is its line in the piece, from 1.
fn parse_piece<T>(
    piece: &[u8],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, (usize, String)> {
    let text = match std::str::from_utf8(piece) {
        Ok(text) => text,
        Err(error) => {
            let good = &piece[..error.valid_up_to()];
            let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
            return Err((line, "it is not UTF-8 text".to_owned()));
        }
    };
    let mut parsed = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if !line.trim_ascii().is_empty() {
            parsed.push(parse(line).map_err(|problem| (i + 1, problem))?);
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8]) -> Result<Vec<u32>, EvalError> {
        parse(Path::new("a"), bytes, "one number", |line| number(line, "value"))
    }

    #[test]
    fn all_lines_come_in_order_however_many_pieces_there_are() {
        let text: String = (0..400_000).map(|i| format!("{i}\r\n\n")).collect();
        assert!(text.len() > 3 * PIECE);
        assert!(run(text.as_bytes()).unwrap().into_iter().eq(0..400_000));
        assert_eq!(run(b"7").unwrap(), [7]);
        assert!(run(b"").unwrap().is_empty());
    }

    #[test]
    fn results_know_their_lines() {
        let bytes = b"\n7\r\n \r\n\n8\n";
        assert_eq!(run(bytes).unwrap(), [7, 8]);
        assert_eq!([0, 1, 2].map(|i| line_of(bytes, i)), [2, 5, 6]);
        assert_eq!(line_of(b"", 0), 1);
    }

    #[test]
    fn the_first_bad_line_is_named_in_any_piece() {
        let mut text: String = (0..400_000).map(|i| format!("{i}\n")).collect();
        text.push_str("x\n");
        assert_eq!(
            run(text.as_bytes()).unwrap_err().to_string(),
            "a:400001: the value is `x`, which is no number"
        );
        let error = run(b"1\n2\n\xff\n").unwrap_err().to_string();
        assert_eq!(error, "a:3: it is not UTF-8 text");
    }
}
