//! Numbers for people.

/// `12345678` as `12,345,678`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes with three significant digits: `1.46 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    // 999.5 would be shown as a fourth digit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A share as a percentage with one decimal; of nothing it is 0.
pub fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{:.1} %", 100.0 * share)
}

/// `2h05m`, `3m20s` or `45s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// `1 image`, `2 images`; the plural adds an s.
pub fn of(n: u64, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(n))
}

/// That nothing can be done with any of `n`: `none of its 6 images can be read`, `its only image cannot be
/// read`.
pub fn none_can(n: u64, noun: &str, done: &str) -> String {
    match n {
        1 => format!("its only {noun} cannot be {done}"),
        n => format!("none of its {} {noun}s can be {done}", count(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_is_called_so() {
        assert_eq!(none_can(1, "image", "read"), "its only image cannot be read");
        assert_eq!(none_can(1200, "image", "read"), "none of its 1,200 images can be read");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(17_091_657), "17,091,657");
    }

    #[test]
    fn bytes_have_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_024), "1.00 KiB");
        assert_eq!(bytes(1_535_000), "1.46 MiB");
        assert_eq!(bytes(134_217_728), "128 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let found = [45.4, 200.0, 7534.0, -1.0].map(duration);
        assert_eq!(found, ["45s", "3m20s", "2h05m", "0s"]);
    }
}
