//! The order of the colours that foreign weights want, measured where their names leave it open.

use std::collections::HashMap;

use pfc_onnx::{ChannelOrder, InputSpec, MeasuredInput, Normalisation, measured_input};
use tch::{Kind, Tensor};

use super::{OpenOptions, choose::Choice};
use crate::{Architecture, IMAGE_SIZE, ModelError};

/// The weights of the layer that pictures come to first.
const FIRST: &str = "conv1.weight";

/// Makes an `IResNet` take red first where its weights want blue first, and says what was measured.
///
/// Weights with `InsightFace`'s keys are taken as red first, as its trainer has them: where their
/// statistics fit something else clearly better, that is said and nothing is changed. Of the other keys
/// both orders are about, so what fits is done.
///
/// * `stated`: what the user knows; of a known order nothing is measured, and of known normalisation nothing said
///
/// # Errors
///
/// [`ModelError::Torch`] and [`ModelError::Memory`].
pub(super) fn settle(
    origin: &str,
    choice: &Choice,
    stated: OpenOptions,
    tensors: &mut [(String, Tensor)],
) -> Result<Option<String>, ModelError> {
    if stated.channels.is_some() || !matches!(choice.architecture, Architecture::IResNet { .. }) {
        return Ok(None);
    }
    let measured = {
        let by_key: HashMap<&str, &Tensor> =
            tensors.iter().map(|(key, tensor)| (key.as_str(), tensor)).collect();
        measured_input(|values| first_normalisations(&by_key, values).ok())
    };
    let measured = measured.map(|measured| match stated.is_range_stated {
        true => MeasuredInput { mean_std: None, ..measured },
        false => measured,
    });
    let spec = |mean_std: Option<_>, channels: Option<_>| {
        let (mean, std) = mean_std.unwrap_or(([127.5; 3], [127.5; 3]));
        let channels = channels.unwrap_or(ChannelOrder::Rgb);
        let spec = InputSpec { mean, std, channels, ..InputSpec::insightface() };
        format!("{} {channels}", spec.formula())
    };
    let what = match (measured, choice.layout) {
        (Some(MeasuredInput { mean_std: None, channels: Some(ChannelOrder::Bgr) }), Some(_)) => {
            for (_, tensor) in tensors.iter_mut().filter(|(key, _)| key == FIRST) {
                *tensor = tensor.f_flip([1]).map_err(ModelError::torch("turn the colours"))?;
            }
            "its statistics fit blue first, so the first layer was turned to take red first; \
             --channels states the order"
                .to_owned()
        }
        (Some(MeasuredInput { mean_std: None, channels: Some(ChannelOrder::Rgb) }), Some(_)) => {
            "its statistics fit red first".to_owned()
        }
        (None | Some(MeasuredInput { mean_std: None, channels: None }), Some(_)) => {
            format!(
                "warning: {origin}: some networks with these keys want blue first, and its statistics do not tell: \
                 red first is assumed, and --channels states the order"
            )
        }
        (Some(MeasuredInput { mean_std, channels }), _)
            if mean_std.is_some() || channels == Some(ChannelOrder::Bgr) =>
        {
            format!(
                "warning: {origin}: its statistics fit {} better than {}, which is assumed: --mean, --std and \
                 --channels state what it wants",
                spec(mean_std, channels),
                spec(None, None)
            )
        }
        _ => return Ok(None),
    };
    let is_whole = what.starts_with("warning: ");
    Ok(Some(if is_whole { what } else { format!("{origin}: {what}") }))
}

/// What the first two normalisations of an `IResNet` are given for a picture, and what they keep.
fn first_normalisations(
    tensors: &HashMap<&str, &Tensor>,
    values: &[f32],
) -> Result<Vec<Normalisation>, tch::TchError> {
    let get = |key: &str| tensors[key].f_to_kind(Kind::Float);
    let picture = Tensor::f_from_slice(values)?.f_view([1, 3, IMAGE_SIZE, IMAGE_SIZE])?;
    let none: Option<Tensor> = None;
    let first = picture.f_conv2d(&get(FIRST)?, none.as_ref(), [1, 1], [1, 1], [1, 1], 1)?;
    let [weight, bias, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(|part| get(&format!("bn1.{part}")));
    let normalised = first.f_batch_norm(
        Some(&weight?),
        Some(&bias?),
        Some(&mean?),
        Some(&variance?),
        false,
        0.0,
        1e-5,
        false,
    )?;
    let second = normalised.f_prelu(&get("prelu.weight")?)?;
    let of = |name: &str, given: &Tensor| -> Result<Normalisation, tch::TchError> {
        let numbers = |tensor: &Tensor| {
            tensor.f_contiguous()?.f_reshape(-1).and_then(|flat| Vec::<f32>::try_from(&flat))
        };
        Ok(Normalisation {
            given: vec![(given.size(), numbers(given)?)],
            mean: numbers(&get(&format!("{name}.running_mean"))?)?,
            variance: numbers(&get(&format!("{name}.running_var"))?)?,
        })
    };
    Ok(vec![of("bn1", &first)?, of("layer1.0.bn1", &second)?])
}
