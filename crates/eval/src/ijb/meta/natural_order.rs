//! The order of the published files.

use std::cmp::Ordering;

/// Compares names with their runs of digits as numbers: `2.jpg` before `10.jpg`.
pub(super) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(p), Some(q)) = (x.first(), y.first()) {
        if !(p.is_ascii_digit() && q.is_ascii_digit()) {
            if p != q {
                return p.cmp(q);
            }
            (x, y) = (&x[1..], &y[1..]);
            continue;
        }
        let (number_x, rest_x) = digits(x);
        let (number_y, rest_y) = digits(y);
        let order = number_x.len().cmp(&number_y.len()).then_with(|| number_x.cmp(number_y));
        if order.is_ne() {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
    // Equal but for leading zeros, or one is the beginning of the other.
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The leading digits without zeros in front, and what follows.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|&b| b != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["b1", "10.jpg", "a/10", "2.jpg", "a/9", "02.jpg", "a"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["02.jpg", "2.jpg", "10.jpg", "a", "a/9", "a/10", "b1"]);
    }

    proptest! {
        #[test]
        fn the_order_of_names_is_total(mut names in proptest::collection::vec("[0-9a]{0,4}", 3)) {
            names.sort_by(|a, b| natural_order(a, b));
            prop_assert!(natural_order(&names[0], &names[2]).is_le());
            prop_assert_eq!(natural_order(&names[0], &names[1]).is_eq(), names[0] == names[1]);
        }
    }
}
