//! The exponential moving average (EMA) of the network's weights.

use pfc_autograd::lists;
use pfc_model::{Backbone, ModelError};
use tch::Tensor;

use super::of_kind;
use crate::config::Config;

/// The exponential moving average of the weights: after each step
/// `mean = decay·mean + (1 - decay)·weights`.
///
/// Running statistics of normalisations are averaged like weights; counters are copied.
#[derive(Debug)]
pub struct Ema {
    backbone: Backbone,
    decay: f64,
}

impl Ema {
    /// An average that begins with the weights of `backbone`; `None` if the configuration wants none.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if memory runs out.
    pub fn new(backbone: &Backbone, config: &Config) -> Result<Option<Ema>, ModelError> {
        let decay = config.optim.ema;
        if decay == 0.0 {
            return Ok(None);
        }
        let spec = config.model.spec();
        let state = backbone.state_dict();
        let mut mean = Backbone::from_state_dict(&spec, backbone.device(), "the network", &state)?;
        mean.set_precision(backbone.precision());
        Ok(Some(Ema { backbone: mean, decay }))
    }

    /// The network with the averaged weights.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Moves the average towards the weights of `backbone`. Called once after each step.
    ///
    /// # Errors
    ///
    /// [`ModelError::Torch`], which only a lack of memory can bring about.
    pub fn update(&mut self, backbone: &Backbone) -> Result<(), ModelError> {
        let tensors = |backbone: &Backbone| -> Vec<Tensor> {
            backbone.state_dict().into_iter().map(|(_, tensor)| tensor).collect()
        };
        let (means, newest) = (tensors(&self.backbone), tensors(backbone));
        let moved = tch::no_grad(|| {
            lists::copy(&of_kind(&means, true), &of_kind(&newest, true))?;
            lists::lerp(&of_kind(&means, false), &of_kind(&newest, false), 1.0 - self.decay)
        });
        moved.map_err(ModelError::torch("move the mean of the weights"))
    }
}

/// The running statistics of all normalisations, sharing their storage with the network: counters in the
/// host's memory, the others on the network's device.
pub fn running(backbone: &Backbone) -> Vec<Tensor> {
    let is_running = |name: &str| {
        ["running_mean", "running_var", "num_batches_tracked"].iter().any(|s| name.ends_with(s))
    };
    let state = backbone.state_dict().into_iter();
    state.filter(|(name, _)| is_running(name)).map(|(_, tensor)| tensor).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn config(ema: f64) -> Config {
        let mut config = Config::default();
        config.model.network = "r10_w8".parse().unwrap();
        config.model.embedding = 8;
        config.optim.ema = ema;
        config
    }

    fn network(seed: u64) -> Backbone {
        Backbone::new(&config(0.0).model.spec(), Device::Cpu, seed).unwrap()
    }

    #[test]
    fn the_mean_moves_by_its_share_towards_the_weights() {
        let (first, second) = (network(1), network(2));
        assert!(Ema::new(&first, &config(0.0)).unwrap().is_none());
        let mut ema = Ema::new(&first, &config(0.75)).unwrap().unwrap();
        ema.update(&second).unwrap();
        let weight = |net: &Backbone| net.state_dict()[0].1.copy();
        let expected = weight(&first) * 0.75 + weight(&second) * 0.25;
        assert!(weight(ema.backbone()).allclose(&expected, 1e-6, 1e-7, false));
    }
}
