//! What a step of this program takes on GPUs, stage by stage, from what a card does in a second.
//!
//! The model is that of a roof: a stage takes as long as its operations or as its bytes, whichever take
//! longer, and stages follow one another. Operations and bytes are those of what is built: SGD, centres and
//! their state on the cards, the drawn ones in one tile, products and exponentials in bf16, a loss with a
//! plain margin. They can be counted on paper; the rates are the caller's.

// k = ranks, B = images of a rank, G = k·B, S = rows that a rank uses in a step, D = embedding.

use serde::{Deserialize, Serialize};

use super::model::{Rows, Sizes};

/// What cards reach, and the ways between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// TFLOP/s of the head's products, bf16 with f32 sums.
    pub product_tflops: f64,
    /// TFLOP/s of convolutions in bf16.
    pub conv_tflops: f64,
    /// GB/s of a card's memory, bytes read and bytes written together.
    pub memory_gbs: f64,
    /// GB/s between a card and the host, each way.
    pub host_gbs: f64,
    /// GB/s that a card sends to another.
    pub wire_gbs: f64,
}

/// What a stage waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Products or convolutions.
    Operations,
    /// A card's memory.
    Memory,
    /// The way between card and host.
    Host,
    /// The way to other ranks.
    Wire,
    /// Beginning operations, and waiting for them.
    Latency,
    /// The threads of the host.
    Threads,
}

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stage {
    /// What is done.
    pub name: &'static str,
    /// Milliseconds.
    pub ms: f64,
    /// What they are spent on.
    pub bound: Bound,
}

/// What a step of a network needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetworkWork {
    /// Multiply-accumulates of one image, forwards.
    pub macs: f64,
    /// Bytes that normalisations, rectifiers and sums of one image move in both passes.
    pub elementwise_bytes: f64,
    /// Numbers that learn.
    pub parameters: f64,
}

const F32: f64 = 4.0;
const HALF: f64 = 2.0;

/// Operations that a step hands to the card, on one rank and on several; a test of `pfc-head` counts the former.
const OPERATIONS: (f64, f64) = (16.0, 28.0);
/// Microseconds between a small operation on a card and the next.
const OPERATION_US: f64 = 2.5;
/// Collectives of a step of the head on cards, embeddings, sums and gradients, and microseconds until each is
/// under way, as published for `NVLink`.
const COLLECTIVES: f64 = 3.0;
const COLLECTIVE_US: f64 = 25.0;
/// Microseconds for the labels of a step from all hosts, and nanoseconds for a row that the host draws, as it
/// does with several ranks: read off the code, not measured.
const LABELS_US: f64 = 200.0;
const DRAW_NS: f64 = 20.0;
/// The default of `train.bucket_mib`: what of the gradients is summed at a time.
const BUCKET_BYTES: f64 = 25.0 * 1_048_576.0;

impl Rates {
    fn operations(&self, flop: f64, bytes: f64) -> (f64, Bound) {
        let (products, memory) = (flop / self.product_tflops / 1e9, self.memory(bytes).0);
        if products >= memory { (products, Bound::Operations) } else { (memory, Bound::Memory) }
    }

    fn memory(&self, bytes: f64) -> (f64, Bound) {
        (bytes / self.memory_gbs / 1e6, Bound::Memory)
    }
}

/// The stages of the head, in their order; those of exchanges take no time on one rank.
///
/// * `rows`: what is kept of a row
pub fn head(sizes: &Sizes, rows: Rows, rates: &Rates) -> Vec<Stage> {
    let Sizes { ranks, batch, dim, .. } = *sizes;
    let (n_rows, images) = (rows_of_rank(sizes), batch * ranks);
    let (weight, state) = row_bytes(dim, rows);
    let unit = HALF * dim;
    let (units, logits) = (n_rows * unit, n_rows * images * HALF);
    let product = 2.0 * n_rows * images * dim;
    let stage = |name, (ms, bound): (f64, Bound)| Stage { name, ms, bound };
    let operations = if ranks > 1.0 { OPERATIONS.1 } else { OPERATIONS.0 };
    let mut stages = vec![
        stage("gather and normalise rows", rates.memory(n_rows * (weight + state) + units)),
        stage("cosines", rates.operations(product, units + images * unit + logits)),
        stage("exponentials", rates.memory(2.0 * logits)),
        stage("weighted rows", rates.operations(product, logits + units + images * F32 * dim)),
        stage("gradients of rows", rates.operations(product, logits + images * unit + units)),
        stage("update of rows", rates.memory(units + 2.0 * n_rows * (weight + state))),
        stage("beginning operations", (operations * OPERATION_US / 1e3, Bound::Latency)),
    ];
    let others = ranks - 1.0;
    let exchanges = if ranks > 1.0 {
        let host_ms = LABELS_US / 1e3 + n_rows * DRAW_NS / 1e6;
        // Numbers of the rows that are drawn.
        let rows_ms = 8.0 * n_rows / rates.host_gbs / 1e6;
        // Embeddings and gradients in a ring; a sum of exponentials and a cosine of each image, f64.
        let rows = 2.0 * others * batch * dim * F32;
        let sums = 2.0 * others / ranks * 16.0 * images;
        let wire_ms = (rows + sums) / rates.wire_gbs / 1e6;
        [host_ms, rows_ms, COLLECTIVES * COLLECTIVE_US / 1e3, wire_ms]
    } else {
        [0.0; 4]
    };
    let named = [
        ("labels and draw", Bound::Threads),
        ("rows to the card", Bound::Host),
        ("beginning collectives", Bound::Latency),
        ("exchange of the head", Bound::Wire),
    ];
    let exchanges = named.into_iter().zip(exchanges);
    stages.extend(exchanges.map(|((name, bound), ms)| Stage { name, ms, bound }));
    stages
}

/// The stages of the network on one rank.
pub fn network(sizes: &Sizes, work: &NetworkWork, rates: &Rates) -> Vec<Stage> {
    let Sizes { ranks, batch, .. } = *sizes;
    // Forwards, and backwards for inputs and for weights.
    let layers_ms = 6.0 * work.macs * batch / rates.conv_tflops / 1e9;
    let (elementwise_ms, _) = rates.memory(work.elementwise_bytes * batch);
    // The norm reads a gradient; weight and velocity are read with it and written.
    let (optimizer_ms, _) = rates.memory(6.0 * F32 * work.parameters);
    // In a ring. What the backward pass, two thirds of the time, does not hide, and at least the last bucket.
    let bytes = F32 * work.parameters;
    let ring_ms = |bytes: f64| 2.0 * (ranks - 1.0) / ranks * bytes / rates.wire_gbs / 1e6;
    let hidden_ms = 2.0 / 3.0 * (layers_ms + elementwise_ms);
    let sum_ms = (ring_ms(bytes) - hidden_ms).max(ring_ms(bytes.min(BUCKET_BYTES)));
    let stage = |name, ms, bound| Stage { name, ms, bound };
    vec![
        stage("convolutions and linear layers", layers_ms, Bound::Operations),
        stage("normalisations, rectifiers and sums", elementwise_ms, Bound::Memory),
        stage("sum of gradients", sum_ms, Bound::Wire),
        stage("optimizer", optimizer_ms, Bound::Memory),
    ]
}

/// The least that the head can take: its three products, or reading weight and state of each row twice and
/// writing them once, whichever takes longer. Milliseconds.
pub fn floor_ms(sizes: &Sizes, rows: Rows, rates: &Rates) -> f64 {
    let Sizes { ranks, batch, dim, .. } = *sizes;
    let (weight, state) = row_bytes(dim, rows);
    let n_rows = rows_of_rank(sizes);
    let flop = 6.0 * n_rows * batch * ranks * dim;
    rates.operations(flop, 3.0 * n_rows * (weight + state)).0
}

fn rows_of_rank(sizes: &Sizes) -> f64 {
    (sizes.identities / sizes.ranks).ceil() * sizes.rate
}

/// Bytes of a row's weight and of its state.
fn row_bytes(dim: f64, rows: Rows) -> (f64, f64) {
    match rows {
        Rows::F32 => (F32 * dim, F32 * dim),
        Rows::Bf16 => (HALF * dim, HALF * dim),
        Rows::RowWise => (HALF * dim, F32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was measured on an H200, and rates between cards and hosts that are easy to count with.
    const RATES: Rates = Rates {
        product_tflops: 790.0,
        conv_tflops: 400.0,
        memory_gbs: 4300.0,
        host_gbs: 50.0,
        wire_gbs: 100.0,
    };

    fn sizes(identities: f64, ranks: f64, batch: f64) -> Sizes {
        Sizes { identities, ranks, batch, dim: 512.0, rate: 0.1 }
    }

    #[track_caller]
    fn check_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-4 * expected, "{found}, not {expected}");
    }

    /// On paper: 3 · 2 · 1e5 · 1024 · 512 operations at 790e12; 3 · 4096 or 3 · 2048 bytes of each of 1e5 rows
    /// at 4.3e12; an eighth of both on eight cards of 128 images; 128 images alone are bound by bytes.
    #[test]
    fn the_least_of_a_step_of_the_head_is_that_on_paper() {
        let check = |identities, ranks, batch, rows, expected| {
            check_near(floor_ms(&sizes(identities, ranks, batch), rows, &RATES), expected);
        };
        check(1e6, 1.0, 1024.0, Rows::F32, 0.398193);
        check(1e6, 1.0, 128.0, Rows::F32, 0.285767);
        check(1e6, 1.0, 128.0, Rows::Bf16, 0.142884);
        check(1e7, 1.0, 1024.0, Rows::Bf16, 3.981934);
        check(1e6, 8.0, 128.0, Rows::Bf16, 0.0497742);
    }

    /// On paper, with S = 1e5 rows of 1024 bytes of weight and as many of state, and G = 1024: a row's 3072 and
    /// 5120 bytes, two and four bytes a logit, a third of the operations above, and 16 times 2.5 µs.
    #[test]
    fn stages_on_one_card_are_those_on_paper() {
        let stages = head(&sizes(1e6, 1.0, 1024.0), Rows::Bf16, &RATES);
        let expected = [0.0714419, 0.132731, 0.0952558, 0.132731, 0.132731, 0.1190698, 0.04];
        for (stage, expected) in stages.iter().zip(expected) {
            check_near(stage.ms, expected);
        }
        assert!(stages[expected.len()..].iter().all(|stage| stage.ms == 0.0));
        assert_eq!(stages[1].bound, Bound::Operations);
        // Of 128 images a product has 1.31e10 operations, 0.0166 ms, but 1.28e8 bytes, 0.0298 ms.
        let few = head(&sizes(1e6, 1.0, 128.0), Rows::Bf16, &RATES);
        assert_eq!(few[1].bound, Bound::Memory);
        check_near(few[1].ms, (1e5 * 1024.0 + 128.0 * 1024.0 + 1e5 * 256.0) / 4.3e9);
    }

    /// On paper, k = 8, B = 128, D = 512, S = 12,500: 200 µs and 20 ns a row; 8 bytes of each row to the card; three
    /// times 25 µs; 2·7·128·512·4 and 2·7/8·16·1024 bytes sent.
    #[test]
    fn exchanges_of_eight_cards_are_those_on_paper() {
        let stages = head(&sizes(1e6, 8.0, 128.0), Rows::Bf16, &RATES);
        let [.., host, rows, begin, exchange] = &stages[..] else { panic!("four at least") };
        check_near(host.ms, 0.2 + 0.25);
        check_near(rows.ms, 100_000.0 / 50e6);
        check_near(begin.ms, 0.075);
        check_near(exchange.ms, (3_670_016.0 + 28_672.0) / 100e6);
        assert_eq!(stages.iter().filter(|stage| stage.bound == Bound::Latency).count(), 2);
    }

    /// On paper: r50 has 6.3e9 multiply-accumulates, 209e6 bytes and 43.6e6 parameters. 6·6.3e9·128 operations at
    /// 400e12, 128·209e6 bytes and 24·43.6e6 bytes at 4.3e12; 2·7/8 of the last 26,214,400 bytes at 100e9, as
    /// the others hide behind 12.2 ms.
    #[test]
    fn the_network_s_stages_are_those_on_paper() {
        let work = NetworkWork { macs: 6.3e9, elementwise_bytes: 209e6, parameters: 43.6e6 };
        let ms = |ranks| -> Vec<f64> {
            let stages = network(&sizes(1e6, ranks, 128.0), &work, &RATES);
            stages.iter().map(|stage| stage.ms).collect()
        };
        let (one, eight) = (ms(1.0), ms(8.0));
        check_near(one[0], 12.096);
        check_near(one[1], 6.221395);
        assert_eq!(one[2], 0.0);
        check_near(one[3], 0.243349);
        check_near(eight[2], 0.458752);
        // Where nothing is hidden, all of them count.
        let alone = NetworkWork { macs: 0.0, elementwise_bytes: 0.0, ..work };
        let stages = network(&sizes(1e6, 8.0, 128.0), &alone, &RATES);
        check_near(stages[2].ms, 1.75 * 174.4e6 / 100e6);
    }
}
