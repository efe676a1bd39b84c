//! Foreign text and pictures on pages.

use base64::{Engine, prelude::BASE64_STANDARD};

/// `text` as text of HTML or SVG: characters that these give a meaning are replaced, and characters
/// that turn the direction of text or end a line, which could fake other content.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A JPEG as the address of a picture, so that a page needs no other file.
pub fn data_uri(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        let escaped = "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;";
        assert_eq!(escape(r#"<a href="x">'&'"#), escaped);
        assert_eq!(escape("a\u{202e}b\n"), "a\u{fffd}b\u{fffd}");
    }
}
