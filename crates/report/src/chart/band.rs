//! The band about a curve: how far off it may be between the places where that is known.

/// A corner, in plot coordinates.
type Corner = (f64, f64);

/// Corners of the band about `curve`, once around.
///
/// At each place where an interval is known, the band reaches from its low to its high end. Between two of
/// them it keeps along the curve, at distances that change evenly from those of the one to those of the other.
///
/// * `curve`: from left to right, in plot coordinates
/// * `intervals`: `(x, end, other end)`, in plot coordinates
///
/// Nothing for fewer than two intervals. O(corners · log intervals).
pub(super) fn corners(curve: &[Corner], intervals: &[(f64, f64, f64)]) -> Vec<Corner> {
    let mut known: Vec<Margin> = intervals.iter().map(|at| Margin::of(curve, *at)).collect();
    known.sort_by(|a, b| a.x.total_cmp(&b.x));
    let [first, .., last] = &known[..] else { return Vec::new() };
    let mut middle: Vec<Corner> = known.iter().map(|at| (at.x, height(curve, at.x))).collect();
    middle.extend(curve.iter().filter(|corner| first.x < corner.0 && corner.0 < last.x));
    // Stable, so that the corners of a step keep their order.
    middle.sort_by(|a, b| a.0.total_cmp(&b.0));
    let margins = middle.iter().map(|&(x, y)| (x, y, Margin::between(&known, x)));
    let (above, below): (Vec<Corner>, Vec<Corner>) =
        margins.map(|(x, y, at)| ((x, y + at.above), (x, y - at.below))).unzip();
    above.into_iter().chain(below.into_iter().rev()).collect()
}

/// How far the band reaches above and below the curve at `x`.
#[derive(Debug, Clone, Copy)]
struct Margin {
    x: f64,
    above: f64,
    below: f64,
}

impl Margin {
    fn of(curve: &[Corner], (x, a, b): (f64, f64, f64)) -> Margin {
        let y = height(curve, x);
        Margin { x, above: (a.max(b) - y).max(0.0), below: (y - a.min(b)).max(0.0) }
    }

    /// The margin at `x`, which lies within the places of `known`.
    fn between(known: &[Margin], x: f64) -> Margin {
        let next = known.partition_point(|at| at.x < x).clamp(1, known.len() - 1);
        let (a, b) = (known[next - 1], known[next]);
        let share = if b.x > a.x { ((x - a.x) / (b.x - a.x)).clamp(0.0, 1.0) } else { 1.0 };
        let mixed = |a: f64, b: f64| a + share * (b - a);
        Margin { x, above: mixed(a.above, b.above), below: mixed(a.below, b.below) }
    }
}

/// The height of a curve at `x`; where it rises straight up, the end of that, and beyond its ends, theirs.
fn height(curve: &[Corner], x: f64) -> f64 {
    let next = curve.partition_point(|corner| corner.0 <= x);
    match (next.checked_sub(1).map(|i| curve[i]), curve.get(next)) {
        (Some(a), Some(b)) => a.1 + (x - a.0) / (b.0 - a.0) * (b.1 - a.1),
        (Some(end), None) | (None, Some(&end)) => end.1,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_keeps_along_its_curve_between_the_known_places() {
        // The curve bends at 1; the margins there are half-way between those at 0 and 2.
        let curve = [(0.0, 0.0), (1.0, 3.0), (2.0, 4.0)];
        let found = corners(&curve, &[(2.0, 3.0, 4.5), (0.0, -1.0, 0.5)]);
        let above = [(0.0, 0.5), (1.0, 3.5), (2.0, 4.5)];
        let below = [(2.0, 3.0), (1.0, 2.0), (0.0, -1.0)];
        assert_eq!(found, [above, below].concat());
    }

    #[test]
    fn a_step_stays_a_step_and_ends_may_be_given_in_either_order() {
        let curve = [(0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (2.0, 2.0)];
        let found = corners(&curve, &[(0.0, 1.0, -1.0), (2.0, 3.0, 1.0)]);
        let above = [(0.0, 1.0), (1.0, 1.0), (1.0, 3.0), (2.0, 3.0)];
        assert_eq!(found[..4], above);
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn one_interval_makes_no_band_and_no_curve_is_no_panic() {
        assert!(corners(&[(0.0, 0.0), (1.0, 1.0)], &[(0.5, 0.0, 1.0)]).is_empty());
        assert!(corners(&[], &[]).is_empty());
        assert_eq!(corners(&[], &[(0.0, 0.0, 1.0), (0.0, 0.0, 1.0)]).len(), 4);
    }
}
