//! The lines of text that ranks and rank 0 send each other.
//!
//! A line is a word, fields after it, and a line feed. The last field of `abort` and `refused` may hold
//! spaces; keys and values are hexadecimal.

use crate::rendezvous::Rendezvous;

/// Longest line of a connection that has not said which rank it is, in bytes.
pub(super) const STRANGER_LINE_MAX: usize = 1024;
/// Longest reason that is passed on, in bytes.
pub(super) const REASON_MAX: usize = 4096;
/// Longest line of a rank: the addresses that Gloo gives to thousands of ranks in one value.
pub(super) const LINE_MAX: usize = 16 << 20;

/// The version that ranks have to share.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a rank says of itself, first of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    token: String,
    attempt: String,
    pub(super) rank: usize,
    world: usize,
    version: String,
}

/// What rank 0 does with a rank that says hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It belongs elsewhere: rank 0 goes on waiting.
    Alone(String),
    /// The two cannot be ranks of one run: both end.
    Both(String),
}

/// From a rank to rank 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToFirst {
    Hello(Hello),
    /// The rank gives up.
    Abort(String),
    /// It has heard the news.
    Seen,
    /// A value for all ranks.
    Set(String, Vec<u8>),
    /// Its operation of this number timed out: who has not come to it?
    Ask(u64),
    /// The number of the operation that it has come to.
    At(u64),
    /// It leaves in good order.
    Bye,
}

/// From rank 0 to a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromFirst {
    Welcome,
    Refused(String),
    /// A rank gave up.
    Abort(usize, String),
    /// A rank's process ended.
    Gone(usize),
    /// An operation timed out that these ranks have not come to.
    Late(Vec<usize>),
    Set(String, Vec<u8>),
    /// Which operation have you come to?
    Where,
    Bye,
}

impl Hello {
    pub(super) fn of(place: &Rendezvous) -> Hello {
        let Rendezvous { token, attempt, rank, world, .. } = place;
        let (token, attempt) = (field(token), field(attempt));
        Hello { token, attempt, rank: *rank, world: *world, version: VERSION.to_owned() }
    }

    /// Why rank 0, which would say `own`, does not let this rank in.
    pub(super) fn refusal(&self, own: &Hello) -> Option<Refusal> {
        let Hello { token, attempt, rank, world, version } = self;
        if *token != own.token {
            let text = "the ranks that meet here belong to another run: their token is another one";
            return Some(Refusal::Alone(text.to_owned()));
        }
        if *attempt != own.attempt {
            return Some(Refusal::Alone(format!(
                "rank {rank} was started in attempt `{attempt}` of this run, but rank 0 in attempt \
                 `{}`",
                own.attempt
            )));
        }
        if *version != own.version {
            return Some(Refusal::Both(format!(
                "rank {rank} runs version {version} of this program, but rank 0 runs version {}",
                own.version
            )));
        }
        if *world != own.world {
            return Some(Refusal::Both(format!(
                "rank {rank} was started as one of {world} ranks, but rank 0 as one of {}",
                own.world
            )));
        }
        let fits = (1..own.world).contains(rank);
        let text = || format!("a second rank {rank} came, or one that is not below {}", own.world);
        (!fits).then(|| Refusal::Alone(text()))
    }

    fn parse(rest: &str) -> Option<Hello> {
        let mut fields = rest.split(' ').map(field);
        let mut next = || fields.next();
        let (token, attempt) = (next()?, next()?);
        let (rank, world) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let version = next()?;
        next().is_none().then_some(Hello { token, attempt, rank, world, version })
    }
}

impl ToFirst {
    pub(super) fn line(&self) -> String {
        match self {
            ToFirst::Hello(Hello { token, attempt, rank, world, version }) => {
                format!("hello {token} {attempt} {rank} {world} {version}")
            }
            ToFirst::Abort(reason) => format!("abort {}", tidy(reason)),
            ToFirst::Seen => "seen".to_owned(),
            ToFirst::Set(key, value) => set(key, value),
            ToFirst::Ask(number) => format!("ask {number}"),
            ToFirst::At(number) => format!("at {number}"),
            ToFirst::Bye => "bye".to_owned(),
        }
    }

    /// `None` for anything that [`line`](ToFirst::line) does not give.
    pub(super) fn parse(line: &str) -> Option<ToFirst> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("hello", _) => Hello::parse(rest).map(ToFirst::Hello),
            ("abort", _) => Some(ToFirst::Abort(rest.to_owned())),
            ("seen", "") => Some(ToFirst::Seen),
            ("set", _) => parse_set(rest).map(|(key, value)| ToFirst::Set(key, value)),
            ("ask", _) => Some(ToFirst::Ask(rest.parse().ok()?)),
            ("at", _) => Some(ToFirst::At(rest.parse().ok()?)),
            ("bye", "") => Some(ToFirst::Bye),
            _ => None,
        }
    }
}

impl FromFirst {
    pub(super) fn line(&self) -> String {
        match self {
            FromFirst::Welcome => "welcome".to_owned(),
            FromFirst::Refused(reason) => format!("refused {}", tidy(reason)),
            FromFirst::Abort(by, reason) => format!("abort {by} {}", tidy(reason)),
            FromFirst::Gone(rank) => format!("gone {rank}"),
            FromFirst::Late(ranks) => {
                let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
                format!("late {}", ranks.join(","))
            }
            FromFirst::Set(key, value) => set(key, value),
            FromFirst::Where => "where".to_owned(),
            FromFirst::Bye => "bye".to_owned(),
        }
    }

    /// `None` for anything that [`line`](FromFirst::line) does not give.
    pub(super) fn parse(line: &str) -> Option<FromFirst> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("welcome", "") => Some(FromFirst::Welcome),
            ("refused", _) => Some(FromFirst::Refused(rest.to_owned())),
            ("abort", _) => {
                let (by, reason) = rest.split_once(' ')?;
                Some(FromFirst::Abort(by.parse().ok()?, reason.to_owned()))
            }
            ("gone", _) => Some(FromFirst::Gone(rest.parse().ok()?)),
            ("late", "") => Some(FromFirst::Late(Vec::new())),
            ("late", _) => {
                let ranks = rest.split(',').map(|rank| rank.parse().ok());
                Some(FromFirst::Late(ranks.collect::<Option<_>>()?))
            }
            ("set", _) => parse_set(rest).map(|(key, value)| FromFirst::Set(key, value)),
            ("where", "") => Some(FromFirst::Where),
            ("bye", "") => Some(FromFirst::Bye),
            _ => None,
        }
    }
}

/// A reason on one line of bounded length.
pub(super) fn tidy(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_MAX);
    reason[..end].replace(['\n', '\r', '\0'], " ")
}

/// Text from the environment as one field: never empty, without spaces, of bounded length.
fn field(text: &str) -> String {
    let end = text.floor_char_boundary(200);
    let text = text[..end].replace(|c: char| c.is_whitespace() || c.is_control(), "_");
    if text.is_empty() { "-".to_owned() } else { text }
}

fn set(key: &str, value: &[u8]) -> String {
    let mut line = String::from("set ");
    push_hex(&mut line, key.as_bytes());
    line.push(' ');
    push_hex(&mut line, value);
    line
}

fn parse_set(rest: &str) -> Option<(String, Vec<u8>)> {
    let (key, value) = rest.split_once(' ')?;
    Some((String::from_utf8(of_hex(key)?).ok()?, of_hex(value)?))
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    line.reserve(2 * bytes.len());
    for byte in bytes {
        line.push(char::from(DIGITS[usize::from(byte >> 4)]));
        line.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(*pair.first()?)? << 4) | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let [token, attempt, version] = ["t", "-", "1.0"].map(str::to_owned);
        Hello { token, attempt, rank: 1, world: 3, version }
    }

    #[test]
    fn every_line_is_read_as_it_was_meant_and_nothing_else_is_read() {
        let value = || vec![0, 10, 255];
        for message in [
            ToFirst::Hello(hello()),
            ToFirst::Abort("the disk is full".into()),
            ToFirst::Seen,
            ToFirst::Set("a key/é".into(), value()),
            ToFirst::Set(String::new(), Vec::new()),
            ToFirst::Ask(u64::MAX),
            ToFirst::At(0),
            ToFirst::Bye,
        ] {
            assert_eq!(ToFirst::parse(&message.line()), Some(message));
        }
        for message in [
            FromFirst::Welcome,
            FromFirst::Refused("no room".into()),
            FromFirst::Abort(3, "why not".into()),
            FromFirst::Gone(7),
            FromFirst::Late(vec![1, 5]),
            FromFirst::Late(Vec::new()),
            FromFirst::Set("k".into(), value()),
            FromFirst::Where,
            FromFirst::Bye,
        ] {
            assert_eq!(FromFirst::parse(&message.line()), Some(message));
        }
        for line in [
            "",
            "hello",
            "hello t - 1 3",
            "hello t - 1 3 1.0 more",
            "set 6 0",
            "set 6z 00",
            "set ff 00",
            "ask",
            "ask -1",
            "ask 18446744073709551616",
            "seen it",
            "GET / HTTP/1.1",
            "late 1,,2",
            "gone",
            "abort",
        ] {
            let both = (ToFirst::parse(line), FromFirst::parse(line));
            let is_abort = line == "abort";
            assert_eq!(both.0.is_some(), is_abort, "{line}: {both:?}");
            assert_eq!(both.1, None, "{line}");
        }
    }

    #[test]
    fn every_difference_between_two_ranks_is_named() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Hello), expected: &str) {
            let own = Hello { rank: 0, ..hello() };
            let mut other = hello();
            change(&mut other);
            let found = match other.refusal(&own) {
                None => String::new(),
                Some(Refusal::Alone(text)) => format!("alone: {text}"),
                Some(Refusal::Both(text)) => format!("both: {text}"),
            };
            assert_eq!(found, expected);
        }
        check(|_| {}, "");
        check(
            |hello| hello.token = "other".into(),
            "alone: the ranks that meet here belong to another run: their token is another one",
        );
        check(
            |hello| hello.attempt = "2".into(),
            "alone: rank 1 was started in attempt `2` of this run, but rank 0 in attempt `-`",
        );
        check(
            |hello| hello.version = "1.1".into(),
            "both: rank 1 runs version 1.1 of this program, but rank 0 runs version 1.0",
        );
        check(
            |hello| hello.world = 2,
            "both: rank 1 was started as one of 2 ranks, but rank 0 as one of 3",
        );
        check(|hello| hello.rank = 3, "alone: a second rank 3 came, or one that is not below 3");
        check(|hello| hello.rank = 0, "alone: a second rank 0 came, or one that is not below 3");
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let long = "é".repeat(REASON_MAX);
        assert_eq!(tidy(&long), "é".repeat(REASON_MAX / 2));
        assert_eq!(tidy(&format!("x{long}")).len(), REASON_MAX - 1);
    }

    #[test]
    fn text_of_the_environment_is_one_field() {
        assert_eq!(field("a b\nc"), "a_b_c");
        assert_eq!(field(""), "-");
        assert_eq!(field(&"é".repeat(1000)), "é".repeat(100));
    }
}
