//! Cumulative match characteristic.

/// Share of `ranks` (from 0) below k, for k from 1 to `k_max`; `cmc[0]` is "Rank 1".
///
/// Without ranks all are NaN.
pub(crate) fn cmc(ranks: impl Iterator<Item = u32>, k_max: usize) -> Vec<f64> {
    let mut counts = vec![0u64; k_max];
    let mut n = 0u64;
    for rank in ranks {
        n += 1;
        if let Some(count) = counts.get_mut(rank as usize) {
            *count += 1;
        }
    }
    let running = counts.iter().scan(0, |sum, &count| {
        *sum += count;
        Some(*sum)
    });
    running.map(|sum| sum as f64 / n as f64).collect()
}
