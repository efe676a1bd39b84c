//! Which networks there are, by name, and what is chosen when one is made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Width and height of the input, in pixels.
pub const IMAGE_SIZE: i64 = 112;

/// The largest embedding size accepted.
pub const EMBEDDING_MAX: i64 = 65_536;

/// A network by the name that InsightFace configurations use, for example `r50`.
///
/// Prints, parses and serialises as that name.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
// The place in `NETWORKS`.
pub struct Network(usize);

/// The shape of a network, from which everything but the embedding size follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Architecture {
    /// Pre-activation residual network.
    IResNet {
        /// Blocks of each stage.
        layers: [usize; 4],
        /// Channels of each stage.
        widths: [i64; 4],
    },
    /// Depthwise-separable residual network.
    MobileFaceNet {
        /// Blocks of each stage.
        blocks: [usize; 4],
        /// Multiplier of the channels between stages.
        scale: i64,
    },
    /// Vision transformer without a class token.
    Vit {
        /// Width of a token; a multiple of `heads`.
        dim: i64,
        /// Number of blocks.
        depth: usize,
        /// Attention heads.
        heads: i64,
        /// Side of a patch, in pixels.
        patch: i64,
        /// Stochastic depth of the last block; it grows linearly from 0.
        drop_path: f64,
        /// Share of tokens hidden while training, in `[0, 1)`.
        mask: f64,
    },
}

const WIDTHS: [i64; 4] = [64, 128, 256, 512];

const fn iresnet(layers: [usize; 4]) -> Architecture {
    Architecture::IResNet { layers, widths: WIDTHS }
}

const fn vit(dim: i64, depth: usize, drop_path: f64, mask: f64) -> Architecture {
    Architecture::Vit { dim, depth, heads: 8, patch: 9, drop_path, mask }
}

/// Every network by name. The names `vit_*_mask_005` state 5 %, but the reference hides 10 % of the
/// tokens whenever its ratio is not 0, and models trained with it were trained so.
const NETWORKS: &[(&str, Architecture)] = &[
    // Not of the reference: ten layers an eighth as wide, for demos and tests.
    ("r10_w8", Architecture::IResNet { layers: [1, 1, 1, 1], widths: [8, 16, 32, 64] }),
    ("r18", iresnet([2, 2, 2, 2])),
    ("r34", iresnet([3, 4, 6, 3])),
    ("r50", iresnet([3, 4, 14, 3])),
    ("r100", iresnet([3, 13, 30, 3])),
    ("r200", iresnet([6, 26, 60, 6])),
    ("mbf", Architecture::MobileFaceNet { blocks: [1, 4, 6, 2], scale: 2 }),
    ("mbf_large", Architecture::MobileFaceNet { blocks: [2, 8, 12, 4], scale: 4 }),
    ("vit_t", vit(256, 12, 0.1, 0.1)),
    ("vit_t_dp005_mask0", vit(256, 12, 0.05, 0.0)),
    ("vit_s", vit(512, 12, 0.1, 0.1)),
    ("vit_s_dp005_mask_0", vit(512, 12, 0.05, 0.0)),
    ("vit_b", vit(512, 24, 0.1, 0.1)),
    ("vit_b_dp005_mask_005", vit(512, 24, 0.05, 0.1)),
    ("vit_l_dp005_mask_005", vit(768, 24, 0.05, 0.1)),
];

impl Network {
    /// Every network, in a fixed order.
    pub fn all() -> impl Iterator<Item = Network> {
        (0..NETWORKS.len()).map(Network)
    }

    /// The name, for example `r50`.
    pub fn name(&self) -> &'static str {
        NETWORKS[self.0].0
    }

    /// What the name stands for.
    pub fn architecture(&self) -> Architecture {
        NETWORKS[self.0].1
    }
}

impl FromStr for Network {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Network, ModelError> {
        Network::all()
            .find(|network| network.name() == name)
            .ok_or_else(|| ModelError::UnknownNetwork { name: name.to_owned() })
    }
}

impl TryFrom<String> for Network {
    type Error = ModelError;

    fn try_from(name: String) -> Result<Network, ModelError> {
        name.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.name().to_owned()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({})", self.name())
    }
}

/// A network and the size of what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// The network.
    pub network: Network,
    /// Numbers in an embedding, from 1 to [`EMBEDDING_MAX`].
    pub embedding: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_parses_from_its_own_name() {
        for network in Network::all() {
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            let json = serde_json::to_string(&network).unwrap();
            assert_eq!(json, format!("\"{network}\""));
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        }
    }

    #[test]
    fn an_unknown_network_is_refused_with_the_nearest_name() {
        let error = "iresnet50".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "no network is called `iresnet50`");
        assert_eq!(error.hint().unwrap(), "did you mean `r50`?");
        let hint = "inception".parse::<Network>().unwrap_err().hint().unwrap();
        assert!(hint.contains("r10_w8, r18, r34, r50, r100"), "{hint}");
    }

    #[test]
    fn a_spec_with_an_unknown_field_is_refused() {
        let text = r#"{"network": "r50", "embedding": 512, "depth": 3}"#;
        assert!(serde_json::from_str::<BackboneSpec>(text).is_err());
    }
}
