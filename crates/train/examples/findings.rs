//! One run of the experiment of `scripts/findings`: a small network on made-up features, trained with
//! the head at some sampling. Prints JSON lines.
//!
//! An identity is a random code; an image of it is the code and more nuisance than that, mixed by one
//! random layer, `x = tanh(M [code, nuisance])`. A network of two layers learns to undo that for identities
//! it has seen, and is judged on pairs of others.

#![allow(clippy::print_stdout)] // its output is its purpose

use anyhow::Context;
use clap::{Parser, ValueEnum};
use pfc_head::{ClassRange, Draw, Head, HeadConfig, Parts, Pprn, Sampler, Solo};
use pfc_metrics::{
    roc::{Far, Ranking},
    verification::ten_fold,
};
use tch::{
    Device, Kind, Tensor,
    nn::{self, Module, ModuleT, OptimizerConfig},
};

/// Train on made-up features.
#[derive(Debug, Parser)]
struct Args {
    /// Which centres a step uses besides the share
    #[arg(long, value_enum)]
    sampling: Sampling,
    /// Share of the identities that a step uses
    #[arg(long)]
    rate: f64,
    /// Seed of everything
    #[arg(long)]
    seed: u64,
    /// Identities trained on
    #[arg(long, default_value_t = 20_000)]
    identities: u64,
    /// Images of a step
    #[arg(long, default_value_t = 256)]
    batch: i64,
    /// Steps
    #[arg(long, default_value_t = 500)]
    steps: u64,
    /// Standard deviation of the nuisance; the code's is 1
    #[arg(long, default_value_t = 1.5)]
    nuisance: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sampling {
    /// All positives, then random negatives
    Pprn,
    /// Random identities alone: an image whose identity is not among them has no loss
    Random,
}

const CODE: i64 = 32;
const INPUT: i64 = 256;
const EMBEDDING: i64 = 32;
/// Identities that are never trained on, and genuine pairs of them; as many impostors.
const UNSEEN: i64 = 2000;
const PAIRS: i64 = 20_000;
/// Training images that the mean cosine with their centres is taken over.
const WATCHED: i64 = 2000;
const WATCH_EVERY: u64 = 100;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let world = World::new(&args);
    let network = Network::new();
    let mut optimizer =
        nn::Sgd { momentum: 0.9, wd: 5e-4, ..nn::Sgd::default() }.build(&network.variables, 0.1)?;
    let config = HeadConfig {
        sample_rate: args.rate,
        seed: args.seed,
        ..HeadConfig::new(args.identities, EMBEDDING as usize)
    };
    let mut head = head(&config, args.sampling)?;
    let watched = world.images_of(&world.training_labels(WATCHED));
    for step in 0..args.steps {
        let lr = 0.1 * (1.0 - step as f64 / args.steps as f64);
        optimizer.set_lr(lr);
        let labels = kept(&args, &config, step, &world.training_labels(args.batch));
        // The batch norm needs two images.
        if labels.len() >= 2 {
            let embeddings_bd = network.embed(&world.images_of(&labels).1, true);
            let output = head.step(&embeddings_bd.detach(), &labels, step, lr)?;
            let objective = (&embeddings_bd * &output.grad_embeddings_bd).sum(Kind::Float);
            optimizer.backward_step(&objective);
        }
        if (step + 1) % WATCH_EVERY == 0 {
            let cavg = mean_cosine(&network, &mut head, &watched)?;
            println!("{}", serde_json::json!({ "step": step + 1, "cavg": cavg }));
        }
    }
    let (accuracy, tar) = world.verify(&network).context("cannot verify")?;
    println!("{}", serde_json::json!({ "accuracy": accuracy, "tar_at_far_1e-3": tar }));
    Ok(())
}

fn head(config: &HeadConfig, sampling: Sampling) -> anyhow::Result<Head> {
    let mut parts = Parts::of_config(config, Box::new(Solo))?;
    if sampling == Sampling::Random {
        parts.sampler = Box::new(RandomOnly(Pprn::new(config.rows_per_step(), config.seed)));
    }
    Ok(Head::with_parts(config, parts)?)
}

/// Rows drawn without regard to the batch.
struct RandomOnly(Pprn);

impl Sampler for RandomOnly {
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32> {
        self.0.draw(&Draw { positives: &[], ..*draw })
    }
}

/// The labels that the head has a centre for in this step.
fn kept(args: &Args, config: &HeadConfig, step: u64, labels: &[i64]) -> Vec<i64> {
    if args.sampling == Sampling::Pprn {
        return labels.to_vec();
    }
    let range = ClassRange::of_rank(args.identities, 0, 1);
    let mut sampler = RandomOnly(Pprn::new(config.rows_per_step(), config.seed));
    let rows = sampler.draw(&Draw { step, positives: &[], range });
    let is_drawn = |label: &i64| rows.binary_search(&(*label as u32)).is_ok();
    labels.iter().copied().filter(is_drawn).collect()
}

/// Codes of all identities, the trained ones first, and what mixes them with nuisance.
struct World {
    codes_nc: Tensor,
    mixing: Tensor,
    identities: i64,
    nuisance: f64,
}

impl World {
    fn new(args: &Args) -> World {
        tch::manual_seed(args.seed as i64);
        let identities = args.identities as i64;
        let codes_nc = Tensor::randn([identities + UNSEEN, CODE], CPU);
        // So that what goes into the tanh has a variance of 2.
        let variance = CODE as f64 * (1.0 + args.nuisance * args.nuisance);
        let mixing = Tensor::randn([2 * CODE, INPUT], CPU) * (2.0 / variance).sqrt();
        World { codes_nc, mixing, identities, nuisance: args.nuisance }
    }

    fn training_labels(&self, n: i64) -> Vec<i64> {
        numbers(&Tensor::randint(self.identities, [n], (Kind::Int64, Device::Cpu)))
    }

    /// One new image of each identity, with its label.
    fn images_of(&self, labels: &[i64]) -> (Vec<i64>, Tensor) {
        let codes_bc = self.codes_nc.index_select(0, &Tensor::from_slice(labels));
        let nuisance_bc = Tensor::randn(codes_bc.size(), CPU) * self.nuisance;
        (labels.to_vec(), Tensor::cat(&[codes_bc, nuisance_bc], 1).matmul(&self.mixing).tanh())
    }

    /// Ten-fold accuracy and TAR at FAR 1e-3 over pairs of unseen identities, every second genuine.
    fn verify(&self, network: &Network) -> anyhow::Result<(f64, f64)> {
        let unseen = || {
            let labels = Tensor::randint(UNSEEN, [PAIRS], (Kind::Int64, Device::Cpu));
            numbers(&(labels + self.identities))
        };
        let (first, second) = (unseen(), unseen());
        let mut pairs = Vec::new();
        for (&a, &b) in first.iter().zip(&second) {
            let other =
                if a == b { self.identities + (b + 1 - self.identities) % UNSEEN } else { b };
            pairs.extend([(a, a), (a, other)]);
        }
        let (left, right): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
        let [left_bd, right_bd] =
            [left, right].map(|labels| unit(&network.embed(&self.images_of(&labels).1, false)));
        let cosines_b =
            (left_bd * right_bd).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let scores: Vec<f64> = Vec::try_from(cosines_b)?;
        let same: Vec<bool> = pairs.iter().map(|(a, b)| a == b).collect();
        let distances: Vec<f64> = scores.iter().map(|cosine| 2.0 - 2.0 * cosine).collect();
        let accuracy = ten_fold(&distances, &same, None)?.mean;
        let tar = Ranking::new(&scores, &same)?.tar_at_far(Far::new(1e-3)?, None)?.tar;
        Ok((accuracy, tar))
    }
}

/// Two layers and a batch norm.
struct Network {
    variables: nn::VarStore,
    first: nn::Linear,
    second: nn::Linear,
    norm: nn::BatchNorm,
}

impl Network {
    fn new() -> Network {
        let variables = nn::VarStore::new(Device::Cpu);
        let root = variables.root();
        let first = nn::linear(&root / "first", INPUT, INPUT, nn::LinearConfig::default());
        let second = nn::linear(&root / "second", INPUT, EMBEDDING, nn::LinearConfig::default());
        let norm = nn::batch_norm1d(&root / "norm", EMBEDDING, nn::BatchNormConfig::default());
        Network { variables, first, second, norm }
    }

    fn embed(&self, images: &Tensor, train: bool) -> Tensor {
        let hidden = self.first.forward(images).relu();
        self.norm.forward_t(&self.second.forward(&hidden), train)
    }
}

/// CAVG: the mean cosine between training images and the centres of their own classes.
fn mean_cosine(
    network: &Network,
    head: &mut Head,
    (labels, images): &(Vec<i64>, Tensor),
) -> anyhow::Result<f64> {
    let state = head.state()?;
    let weight_cd = &state.first().context("the head has no centres")?.1;
    let own_bd = weight_cd.index_select(0, &Tensor::from_slice(labels));
    let embeddings_bd = tch::no_grad(|| network.embed(images, false));
    let cosines_b = (unit(&own_bd) * unit(&embeddings_bd)).sum_dim_intlist(
        [1i64].as_slice(),
        false,
        Kind::Double,
    );
    Ok(cosines_b.mean(Kind::Double).double_value(&[]))
}

fn unit(rows_bd: &Tensor) -> Tensor {
    rows_bd / rows_bd.norm_scalaropt_dim(2, [1i64], true).clamp_min(1e-12)
}

fn numbers(tensor: &Tensor) -> Vec<i64> {
    let mut values = vec![0; tensor.numel()];
    let n_values = values.len();
    tensor.copy_data(&mut values, n_values);
    values
}
