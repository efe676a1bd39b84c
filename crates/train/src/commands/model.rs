//! `pfc-train model`: what a network costs.

use pfc_cli::{Format, Outcome, print_json, print_table, table};
use pfc_model::{Backbone, BackboneSpec, ModelError, Network};
use serde::Serialize;

/// Print what networks cost: parameters and multiply-accumulates
///
/// Counts are of the backbone alone, for one image of 112×112: convolutions, linear layers and
/// attention products, as papers on these networks count. The head adds classes × embedding
/// parameters while training.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-train model r50
  pfc-train model r50 r100 vit_b --embedding 256
  pfc-train model --json")]
pub struct ModelArgs {
    /// Networks by name; all if none is given
    #[arg(value_name = "NETWORK", value_parser = parse_network)]
    networks: Vec<Network>,
    /// Numbers in an embedding
    #[arg(long, value_name = "N", default_value_t = 512)]
    embedding: i64,
    #[command(flatten)]
    format: Format,
}

/// With the way out, which an error of the command line shows nowhere else.
pub(super) fn parse_network(name: &str) -> Result<Network, String> {
    let told = |error: ModelError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    name.parse::<Network>().map_err(told)
}

/// One network's costs.
#[derive(Debug, Serialize)]
struct Row {
    network: Network,
    embedding: i64,
    /// Frozen ones included, running statistics not.
    parameters: u64,
    /// Numbers that learn.
    trainable: u64,
    /// Entries of the state dict.
    tensors: usize,
    /// Multiply-accumulates of one image.
    macs: u64,
}

/// Runs `pfc-train model`.
///
/// # Errors
///
/// [`pfc_model::ModelError::EmbeddingSize`].
pub fn model(args: &ModelArgs) -> anyhow::Result<Outcome> {
    let networks = match &args.networks[..] {
        [] => Network::all().collect(),
        named => named.to_vec(),
    };
    let rows = networks.into_iter().map(|network| row(network, args.embedding));
    let rows = rows.collect::<Result<Vec<Row>, _>>()?;
    if args.format.json {
        print_json(&rows)?;
        return Ok(Outcome::Clean);
    }
    let mut out = table(["network", "embedding", "parameters", "MACs", "f32 weights", "tensors"]);
    for row in &rows {
        out.add_row([
            row.network.to_string(),
            row.embedding.to_string(),
            format!("{:.2}M", row.parameters as f64 / 1e6),
            format!("{:.2}G", row.macs as f64 / 1e9),
            format!("{:.1} MB", row.parameters as f64 * 4.0 / 1e6),
            row.tensors.to_string(),
        ]);
    }
    print_table(&out)?;
    Ok(Outcome::Clean)
}

fn row(network: Network, embedding: i64) -> Result<Row, ModelError> {
    let backbone = Backbone::shapes(&BackboneSpec { network, embedding })?;
    let trainable = backbone.named_parameters().iter().map(|(_, t)| t.numel() as u64).sum();
    Ok(Row {
        network,
        embedding,
        parameters: backbone.n_parameters(),
        trainable,
        tensors: backbone.state_dict().len(),
        macs: backbone.n_macs(),
    })
}
