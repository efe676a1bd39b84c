//! Markup of pages, and foreign text and pictures in it.
//!
//! Pages are written with [`html!`], which makes text of whatever is not [`Markup`] already: what
//! comes from elsewhere cannot become markup unless somebody says [`PreEscaped`].

use base64::{Engine, prelude::BASE64_STANDARD};
pub use maud::{Markup, PreEscaped, html};

/// A value as text, for cells of tables.
pub fn text(value: impl std::fmt::Display) -> Markup {
    html! { (value) }
}

/// Markup without the characters that turn the direction of text or control a terminal, which could
/// fake other content; lines may end.
pub fn plain(markup: &str) -> String {
    let is_plain = |c: char| c == '\n' || !(c.is_control() || is_direction(c));
    markup.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect()
}

fn is_direction(c: char) -> bool {
    ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
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
        let name = r#"<a href="x">&</a>"#;
        let escaped = "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;";
        assert_eq!(text(name).into_string(), escaped);
        let quoted = html! { img alt=(name) src="data:,"; }.into_string();
        assert_eq!(quoted, format!("<img alt=\"{escaped}\" src=\"data:,\">"));
    }

    #[test]
    fn characters_that_could_fake_content_are_replaced() {
        assert_eq!(plain("a\u{202e}b\n\r\u{7}\u{2066}é"), "a\u{fffd}b\n\u{fffd}\u{fffd}\u{fffd}é");
    }
}
