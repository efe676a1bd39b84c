//! One reading of labels for all sources: lists, folder names, `.cls` and `.json` members, columns of
//! tables and RecordIO.
//!
//! | stated | read as |
//! |---|---|
//! | `3`, `+3`, `3.0`, `3,0`, `3.`, `3e0`, `３` (decimal digits of any script) | the number 3 |
//! | `-0`, `-0.0` | the number 0 |
//! | `007`, `1_000`, `0x10`, `18446744073709551616` | a name, as padded and coded ids are |
//! | `1e3` | the number 1000 where all labels of the source are numbers, else a name |
//! | `Ann Lee` | a name, without the white space around it |
//! | nothing, `None`, `NA`, `null`, `\N`, `#REF!` … (what programs write where nothing is) | no label |
//! | `-1`, `-1.0` (noise, for clustering programs), `0.5`, NaN and infinity in any spelling | no label |
//!
//! An entry without a label is left out with the reason; it never stops a source.

/// Whom an image shows, as its source states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A class number, which is the name as well.
    Number(u64),
    /// A number with an exponent and no more, such as `1e3`, and its text: in a source with names it
    /// is more likely a hexadecimal id.
    Exponent(u64, Box<str>),
    /// A name.
    Name(Box<str>),
    /// A name, and the number that gives it its place.
    Both(u64, Box<str>),
}

/// A label or an identity as it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Null, or a cell without a value.
    Missing,
    /// Of any integer type.
    Integer(i128),
    /// Of any floating point type.
    Float(f64),
    /// Text in any layout.
    Text(&'a str),
}

/// How programs spell a missing value: pandas (the default of its option `na_values`), to which most lists
/// go back, databases (`\N`, `(null)`), JavaScript, the errors of spreadsheets, and C on Windows
/// (`1.#QNAN`). Case counts: `Nan`, `Na` and `Null` are names of people.
const MISSING: &[&str] = &[
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "None",
    "n/a",
    "null",
    "NaT",
    "NONE",
    "(null)",
    "(NULL)",
    "<null>",
    "<NULL>",
    "[null]",
    "[NULL]",
    "\\N",
    "undefined",
    "#DIV/0!",
    "#NAME?",
    "#NULL!",
    "#NUM!",
    "#REF!",
    "#VALUE!",
    "1.#SNAN",
    "1.#INF",
    "-1.#INF",
];

/// How not-a-number and infinity are spelled, in any case and after any sign but for `Nan`.
const NOT_FINITE: &[&str] = &["nan", "nan(ind)", "nan(snan)", "inf", "infinity"];

/// Whether a text is not-a-number or infinity.
fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+', '\u{2212}']).unwrap_or(text);
    text != "Nan" && NOT_FINITE.iter().any(|spelling| unsigned.eq_ignore_ascii_case(spelling))
}

/// The code points of zero in the scripts of the Basic Multilingual Plane; 1 to 9 follow each
/// (general category `Nd` of the Unicode Character Database, and its promise of contiguity).
const ZEROS: &[u32] = &[
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66,
    0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// No class has more digits; a longer text is a name.
const DIGITS_MAX: usize = 64;

/// Whether a name that stands in a table or a sample is read as it is: it neither stands for nobody nor
/// is a number that is spelled in another way.
pub fn is_read_as_it_is(name: &str) -> bool {
    Who::parse(None, Some(name)).is_ok_and(|who| &*who.into_name() == name)
}

impl Who {
    /// Reads what a label, an identity or both say: the label then gives the place, the identity the
    /// name.
    ///
    /// # Errors
    ///
    /// Why they name nobody, in a few words.
    pub fn of(label: Option<Value<'_>>, identity: Option<Value<'_>>) -> Result<Who, String> {
        match (label, identity) {
            (None, None) => Err("there is no label".into()),
            (Some(value), None) | (None, Some(value)) => one(value),
            (Some(label), Some(identity)) => {
                let name = one(identity)?.into_name();
                match one(label)? {
                    Who::Number(number) | Who::Exponent(number, _) => Ok(Who::Both(number, name)),
                    Who::Name(label) | Who::Both(_, label) => {
                        Err(format!("label `{label}` beside identity `{name}` is no whole number"))
                    }
                }
            }
        }
    }

    /// The same for text.
    ///
    /// # Errors
    ///
    /// As [`Who::of`].
    pub fn parse(label: Option<&str>, identity: Option<&str>) -> Result<Who, String> {
        Who::of(label.map(Value::Text), identity.map(Value::Text))
    }

    /// What the identity is called.
    pub(crate) fn into_name(self) -> Box<str> {
        match self {
            Who::Number(number) => number.to_string().into(),
            Who::Exponent(_, name) | Who::Name(name) | Who::Both(_, name) => name,
        }
    }
}

fn one(value: Value<'_>) -> Result<Who, String> {
    match value {
        Value::Missing => Err("the label is missing".into()),
        Value::Integer(number) => match u64::try_from(number) {
            Ok(number) => Ok(Who::Number(number)),
            Err(_) if number < 0 => Err(negative(&number.to_string())),
            Err(_) => Err(format!("label {number} is beyond 64 bits")),
        },
        Value::Float(number) if number.is_nan() => Err("the label is not a number (NaN)".into()),
        Value::Float(number) if number < 0.0 => Err(negative(&number.to_string())),
        Value::Float(number) if number.fract() != 0.0 => Err(not_whole(&number.to_string())),
        // 2^64: beyond it, and at infinity, a conversion would saturate.
        Value::Float(number) if number >= 18_446_744_073_709_551_616.0 => {
            Err(format!("label {number} is beyond 64 bits"))
        }
        Value::Float(number) => Ok(Who::Number(number as u64)),
        Value::Text(text) => of_text(text),
    }
}

fn of_text(text: &str) -> Result<Who, String> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Err("the label is empty".into());
    }
    if MISSING.contains(&text) || is_not_finite(text) {
        return Err(format!("label `{text}` stands for none"));
    }
    let Some(numeral) = Numeral::parse(text) else { return Ok(Who::Name(text.into())) };
    match numeral.whole() {
        Some(0) => Ok(Who::Number(0)),
        _ if numeral.is_negative => Err(negative(text)),
        None if numeral.is_fraction() => Err(not_whole(text)),
        // Beyond 64 bits it is a name like any other.
        None => Ok(Who::Name(text.into())),
        Some(number) if numeral.is_exponent => Ok(Who::Exponent(number, text.into())),
        Some(number) => Ok(Who::Number(number)),
    }
}

fn negative(label: &str) -> String {
    format!("label {label} is negative, so it names no identity")
}

fn not_whole(label: &str) -> String {
    format!("label {label} is no whole number")
}

/// A decimal number as text has it: its digits, times ten to the power.
#[derive(Debug)]
struct Numeral {
    is_negative: bool,
    /// Without zeros at the end, which are in the power; empty for zero.
    digits: Vec<u8>,
    power: i64,
    /// It has an exponent, and neither a point nor a sign.
    is_exponent: bool,
}

impl Numeral {
    fn parse(text: &str) -> Option<Numeral> {
        let (is_negative, unsigned) = match text.strip_prefix(['-', '\u{2212}']) {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.').or_else(|| decimal_comma(mantissa)) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let (whole, fraction_digits) = (digits(whole)?, digits(fraction.unwrap_or_default())?);
        let is_padded = whole.len() > 1 && whole[0] == 0;
        let n_digits = whole.len() + fraction_digits.len();
        if n_digits == 0 || n_digits > DIGITS_MAX || is_padded || whole.is_empty() {
            return None;
        }
        let mut power = match exponent {
            None => 0,
            Some(text) => text.strip_prefix('+').unwrap_or(text).parse::<i32>().ok()?.into(),
        } - fraction_digits.len() as i64;
        let mut digits = [whole, fraction_digits].concat();
        while digits.pop_if(|digit| *digit == 0).is_some() {
            power += 1;
        }
        let is_signed = unsigned.len() < text.len() || exponent.is_some_and(|e| e.starts_with('+'));
        let is_exponent = exponent.is_some() && fraction.is_none() && !is_signed;
        Some(Numeral { is_negative, digits, power, is_exponent })
    }

    /// The number, if it is whole and fits.
    fn whole(&self) -> Option<u64> {
        if self.digits.iter().all(|digit| *digit == 0) {
            return Some(0);
        }
        let power = u32::try_from(self.power).ok()?;
        let push = |value: u64, digit: &u8| value.checked_mul(10)?.checked_add((*digit).into());
        let value = self.digits.iter().try_fold(0_u64, push)?;
        value.checked_mul(10_u64.checked_pow(power)?)
    }

    fn is_fraction(&self) -> bool {
        self.power < 0
    }
}

/// The two sides of a comma with nothing but zeros behind it, as spreadsheets of half the world write a
/// whole float. Three zeros may as well be thousands, and other digits are more likely two ids.
fn decimal_comma(text: &str) -> Option<(&str, &str)> {
    let (whole, zeros) = text.split_once(',')?;
    let are_zeros = zeros.bytes().all(|byte| byte == b'0');
    (are_zeros && !matches!(zeros.len(), 0 | 3)).then_some((whole, zeros))
}

/// The values of decimal digits in any script.
fn digits(text: &str) -> Option<Vec<u8>> {
    let digit = |c: char| {
        let in_script = |zero: &u32| u32::from(c).checked_sub(*zero).filter(|digit| *digit < 10);
        let found = c.to_digit(10).or_else(|| ZEROS.iter().find_map(in_script));
        found.map(|digit| digit as u8)
    };
    text.chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Who, String> {
        Who::parse(Some(text), None)
    }

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        for (text, number) in [
            ("0", 0),
            ("3", 3),
            (" 3 ", 3),
            ("\u{feff}3", 3),
            ("+7", 7),
            ("3.0", 3),
            ("3.", 3),
            ("10.000", 10),
            ("3,0", 3),
            ("10,00", 10),
            ("-0,0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("0e9", 0),
            ("1.0e3", 1000),
            ("1e+03", 1000),
            ("2.5e1", 25),
            ("120.0e-1", 12),
            ("\u{ff11}\u{ff12}", 12),
            ("\u{0663}", 3),
            ("18446744073709551615", u64::MAX),
            ("16777217.0", 16_777_217),
        ] {
            assert_eq!(parse(text), Ok(Who::Number(number)), "{text}");
        }
        assert_eq!(parse("1e3"), Ok(Who::Exponent(1000, "1e3".into())));
    }

    #[test]
    fn ids_that_are_no_plain_numbers_are_names() {
        for text in [
            "007",
            "00",
            "007.0",
            "1_000",
            "0x10",
            "18446744073709551616",
            "1e30",
            "1e99999999999",
            ".5",
            "e3",
            "1e",
            "1.2.3",
            "1,000",
            "1,2",
            "3,",
            ",0",
            "1,0,0",
            "-x",
            "+",
            "-",
            "m.0107_f",
            "n000001",
            "Na",
            "Nan",
            "none",
            "Null",
            "Infante",
            "\\Nora",
            "Jos\u{e9}",
            "1 2",
            "\u{2460}",
            "3d",
        ] {
            assert_eq!(parse(text), Ok(Who::Name(text.into())), "{text}");
        }
        assert_eq!(parse(" Ann Lee\u{a0}"), Ok(Who::Name("Ann Lee".into())));
    }

    #[test]
    fn what_stands_for_no_label_says_so() {
        let negative = |text: &str| format!("label {text} is negative, so it names no identity");
        for text in ["-1", "-1.0", "-1,0", "-0.5", "-1e3", "\u{2212}2", "-007x1"] {
            let expected = match text {
                // No number: a name that begins with a dash.
                "-007x1" => Ok(Who::Name(text.into())),
                text => Err(negative(text)),
            };
            assert_eq!(parse(text), expected);
        }
        let missing = [
            "nan",
            "NaN",
            "None",
            "NULL",
            "null",
            "NA",
            "N/A",
            "<NA>",
            "inf",
            "-inf",
            "NAN",
            "+nan",
            "-nan(ind)",
            "Inf",
            "-Inf",
            "INF",
            "+inf",
            "Infinity",
            "1.#INF",
            "-1.#IND",
            "NONE",
            "(null)",
            "<null>",
            "[NULL]",
            "\\N",
            "undefined",
            "#DIV/0!",
            "#REF!",
            "#N/A",
            "NaT",
        ];
        for text in missing {
            assert_eq!(parse(text), Err(format!("label `{text}` stands for none")));
        }
        for text in ["0.5", "1e-1", "3.25"] {
            assert_eq!(parse(text), Err(format!("label {text} is no whole number")));
        }
        for text in ["", " ", "\t\r\n", "\u{a0}"] {
            assert_eq!(parse(text), Err("the label is empty".into()));
        }
    }

    #[test]
    fn stored_numbers_are_read_as_their_texts_are() {
        let of = |value| Who::of(Some(value), None);
        assert_eq!(of(Value::Integer(3)), Ok(Who::Number(3)));
        assert_eq!(of(Value::Integer(u64::MAX.into())), Ok(Who::Number(u64::MAX)));
        assert_eq!(of(Value::Float(3.0)), Ok(Who::Number(3)));
        assert_eq!(of(Value::Float(-0.0)), Ok(Who::Number(0)));
        for value in [
            Value::Missing,
            Value::Integer(-1),
            Value::Integer(i128::MAX),
            Value::Float(f64::NAN),
            Value::Float(-1.0),
            Value::Float(0.5),
            Value::Float(f64::INFINITY),
            Value::Float(f64::NEG_INFINITY),
            Value::Float(18_446_744_073_709_551_616.0),
        ] {
            assert!(of(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_label_gives_the_place_and_an_identity_the_name() {
        let both = |number, name: &str| Ok(Who::Both(number, name.into()));
        assert_eq!(Who::parse(Some("3.0"), Some("007")), both(3, "007"));
        assert_eq!(Who::parse(Some("1e1"), Some("4.0")), both(10, "4"));
        let problem = Who::parse(Some("x"), Some("y")).unwrap_err();
        assert_eq!(problem, "label `x` beside identity `y` is no whole number");
        assert!(Who::parse(Some("nan"), Some("y")).is_err());
        assert!(Who::parse(Some("3"), Some("")).is_err());
        assert!(Who::of(None, None).is_err());
    }
}
