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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, path::Path};

    use pfc_onnx::InputOptions;
    use tch::Device;

    use super::*;
    use crate::{Backbone, Embedder, EmbedderOptions, export};

    const TINY: Architecture = Architecture::IResNet { layers: [1; 4], widths: [8; 4] };
    const FITS_BETTER: &str = "its statistics fit x / 255 RGB better than (x − 127.5) / 127.5 RGB";

    /// The drawn faces that networks are measured with, as pixels of 0 to 255.
    fn drawn() -> Vec<Vec<f32>> {
        let seen = RefCell::new(Vec::new());
        let measured = measured_input(|values| {
            seen.borrow_mut().push(values.to_vec());
            Some(Vec::new())
        });
        assert_eq!(measured, None);
        let mut pictures = seen.into_inner();
        // Of all the ways in which networks have their pixels, this alone has values above 100 and none below 0.
        pictures
            .retain(|values| values.iter().any(|&v| v > 100.0) && values.iter().all(|&v| v >= 0.0));
        assert_eq!(pictures.len(), 2);
        pictures
    }

    /// A network whose first normalisations keep what they are given for drawn faces of x / 255.
    fn of_unit_pixels() -> Backbone {
        let backbone = Backbone::with_architecture(TINY, 8, Device::Cpu, 3).unwrap();
        let state = backbone.state_dict();
        let by_key: HashMap<&str, &Tensor> =
            state.iter().map(|(key, tensor)| (key.as_str(), tensor)).collect();
        let faces: Vec<Vec<f32>> =
            drawn().iter().map(|face| face.iter().map(|value| value / 255.0).collect()).collect();
        // What the second is given depends on what the first keeps.
        for (i, name) in ["bn1", "layer1.0.bn1"].iter().enumerate() {
            let given = |face: &Vec<f32>| {
                let (shape, numbers) =
                    first_normalisations(&by_key, face).unwrap().swap_remove(i).given.remove(0);
                Tensor::from_slice(&numbers).view(&shape[..])
            };
            let given = Tensor::cat(&faces.iter().map(given).collect::<Vec<_>>(), 0);
            let (variance, mean) = given.var_mean_dim([0, 2, 3].as_slice(), false, false);
            for (part, value) in [("running_mean", mean), ("running_var", variance)] {
                by_key[format!("{name}.{part}").as_str()].shallow_clone().copy_(&value);
            }
        }
        backbone
    }

    fn notes(path: &Path, input: InputOptions) -> Vec<String> {
        let options = EmbedderOptions { input, ..EmbedderOptions::default() };
        Embedder::open_with(path, &options).unwrap().notes().to_vec()
    }

    #[test]
    fn another_normalisation_is_proposed_unless_the_user_has_stated_any_part_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        export::safetensors(&path, &of_unit_pixels(), false).unwrap();
        let found = notes(&path, InputOptions::default());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("warning: ") && found[0].contains(FITS_BETTER), "{found:?}");
        let none = InputOptions::default;
        for stated in [
            InputOptions { mean: Some([0.0; 3]), ..none() },
            InputOptions { std: Some([255.0; 3]), ..none() },
            InputOptions { mean: Some([127.5; 3]), std: Some([127.5; 3]), ..none() },
            InputOptions { channels: Some(ChannelOrder::Rgb), ..none() },
        ] {
            assert_eq!(notes(&path, stated.clone()), [""; 0], "{stated:?}");
        }
    }

    #[test]
    fn a_stated_normalisation_leaves_the_colours_of_foreign_keys_to_be_measured() {
        let choice = Choice {
            architecture: TINY,
            network: None,
            embedding: 8,
            weights: Vec::new(),
            prefix: String::new(),
            layout: Some("another program"),
            passed_over: Vec::new(),
        };
        let settled = |is_blue_first: bool, is_range_stated: bool| {
            let mut tensors = of_unit_pixels().state_dict();
            let first = tensors.iter().position(|(key, _)| key == FIRST).unwrap();
            let red_first = tensors[first].1.copy();
            if is_blue_first {
                tensors[first].1 = red_first.flip([1]);
            }
            let stated = OpenOptions { is_range_stated, ..OpenOptions::default() };
            let note = settle("a.pth", &choice, stated, &mut tensors).unwrap().unwrap();
            (note, tensors[first].1 == red_first)
        };
        let (note, is_red_first) = settled(false, false);
        assert!(note.contains(FITS_BETTER) && is_red_first, "{note}");
        let (note, is_red_first) = settled(false, true);
        assert!(note.ends_with("its statistics fit red first") && is_red_first, "{note}");
        let (note, is_red_first) = settled(true, true);
        assert!(note.contains("its statistics fit blue first") && is_red_first, "{note}");
    }
}
