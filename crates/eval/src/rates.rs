//! Rates as people write them.

/// A false accept rate as people write it, all in one way: `1e-1`, `1.23e-2`, `9.67e-4`.
pub fn rate(far: f64) -> String {
    if far == 0.0 || far >= 1.0 {
        return format!("{far}");
    }
    let text = format!("{far:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_are_short() {
        let texts = [0.1, 0.0123, 1e-3, 0.000_966_7, 0.0, 1.0].map(super::rate);
        assert_eq!(texts, ["1e-1", "1.23e-2", "1e-3", "9.67e-4", "0", "1"]);
    }
}
