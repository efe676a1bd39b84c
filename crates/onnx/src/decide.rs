//! What a network's input wants: the decision, with its reasons.
//!
//! In this order count what the user states, what the file's metadata state, what the graph does to its input
//! ([`front`](crate::front)), what its statistics fit ([`statistics`](crate::statistics)), what its first biases
//! are ([`biases`](crate::biases)), and at last what InsightFace's networks want. What is only assumed is a warning.

use crate::{
    ChannelOrder, InputOptions, InputSpec, Origin,
    biases::Line,
    declared::Declared,
    front::{Effect, Way},
    input::numbers,
    metadata,
    proto::{ModelProto, data_type},
    range::{Range, Said, Why, called_for, first_is_red},
    statistics::Fits,
};

/// What was found out about an input.
#[derive(Debug)]
pub(crate) struct Facts<'m> {
    pub(crate) model: &'m ModelProto,
    pub(crate) declared: &'m Declared,
    pub(crate) way: Way,
    pub(crate) effect: Result<Effect, String>,
    pub(crate) fits: Option<Fits>,
    /// Of the convolution that takes the pixels.
    pub(crate) line: Option<Line>,
}

/// What the input is given, and why.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) spec: InputSpec,
    /// Why the pixels are normalised so, and lie in this order.
    pub(crate) reasons: [String; 2],
    /// Whether nothing supports the normalisation, and the order of the colours.
    pub(crate) is_assumed: [bool; 2],
    pub(crate) warnings: Vec<String>,
    /// What was measured, a line a fact.
    pub(crate) evidence: Vec<String>,
}

/// A choice, why, and whether it is only assumed.
type Choice<T> = (T, String, bool);

/// Decides on the facts.
///
/// # Errors
///
/// Metadata that cannot be read.
pub(crate) fn decide(facts: &Facts<'_>, options: &InputOptions) -> Result<Decision, String> {
    let mut warnings = Vec::new();
    let said = said(facts);
    let (mut spec, reason, is_assumed) = normalisation(facts, said, &mut warnings)?;
    let (channels, order_reason, is_order_assumed) = order(facts, options)?;
    spec.channels = channels;
    let mut reasons = [reason, order_reason];
    let mut is_assumed = [is_assumed, is_order_assumed];
    if options.mean.is_some() || options.std.is_some() {
        spec.mean = options.mean.unwrap_or(spec.mean);
        spec.std = options.std.unwrap_or(spec.std);
        spec.origin = Origin::Stated;
        (reasons[0], is_assumed[0]) = ("as stated".to_owned(), false);
        warnings.clear();
        warnings.extend(normalised_twice(facts, said, &spec));
    }
    if let Ok(effect) = &facts.effect {
        if effect.is_divided {
            let layers = facts.way.layers.join(" and ");
            warnings.push(format!("the layers ({layers}) take its input in different ways"));
        }
        if effect.is_swapped && is_order_assumed && channels != ChannelOrder::Grey {
            warnings.push(
                "the graph swaps the first and the last channel: whether it wants RGB or BGR from \
                 outside cannot be told; --channels states it"
                    .to_owned(),
            );
        }
    }
    Ok(Decision { spec, reasons, is_assumed, warnings, evidence: evidence(facts) })
}

/// What the graph says by what it does.
fn said(facts: &Facts<'_>) -> Said {
    let is_batch_norm = facts.way.passed.iter().any(|op| op == "BatchNormalization");
    facts.effect.as_ref().map_or(Said::Nothing, |effect| called_for(effect, is_batch_norm))
}

fn normalisation(
    facts: &Facts<'_>,
    said: Said,
    warnings: &mut Vec<String>,
) -> Result<Choice<InputSpec>, String> {
    let with = |(mean, std), origin| InputSpec {
        origin,
        ..facts.declared.spec((mean, std), ChannelOrder::Rgb)
    };
    let of = |range: Range, origin| with(range.mean_std(), origin);
    let value = |key| metadata_value(facts.model, key);
    if let (Some(mean), Some(std)) = (value(metadata::MEAN), value(metadata::STD)) {
        let spec = with((numbers(mean)?, InputOptions::parse_std(std)?), Origin::Metadata);
        return Ok((spec, "the file's metadata say so".to_owned(), false));
    }
    if facts.declared.elem_type == data_type::UINT8 {
        let why = "its input takes bytes".to_owned();
        return Ok((of(Range::Bytes, Origin::Graph), why, false));
    }
    let fits = facts.fits.as_ref();
    let passed = facts.way.passed.join(", ");
    let measured = "the statistics of its training set fit this and nothing else";
    Ok(match said {
        Said::One(range, why) => match fits.and_then(|fits| fits.refutes(range)) {
            None => {
                let why = match why {
                    Why::Normalises => format!("the graph normalises them itself ({passed})"),
                    Why::CutsOff => format!("the graph cuts off what lies beyond ({passed})"),
                };
                (of(range, Origin::Graph), why, false)
            }
            Some(best) => {
                warnings.push(format!(
                    "its first operators ({passed}) look as if it took {range}, but the statistics of \
                     its training set fit {best}; --mean and --std state it"
                ));
                (of(best, Origin::Measured), measured.to_owned(), false)
            }
        },
        Said::Either(first, second) => {
            let chosen = fits.and_then(Fits::best).filter(|best| [first, second].contains(best));
            let why = format!("the graph does part of it ({passed})");
            match chosen {
                Some(best) => (of(best, Origin::Measured), format!("{why}; {measured}"), false),
                None => {
                    let why = format!("{why}, and {second} would fit as well");
                    (of(first, Origin::Graph), why, true)
                }
            }
        }
        Said::Nothing => {
            if let Some((best, fits)) =
                fits.and_then(|fits| Some((fits.refutes(Range::Signed)?, fits)))
            {
                let (found, usual) = (fits.of(best), fits.of(Range::Signed));
                // Not out by orders of magnitude, as where pixels of another size are meant.
                if usual < 1.0 {
                    warnings.push(format!(
                        "{}, which is usual, fits its statistics less well (a misfit of {usual:.2}, not \
                         {found:.2}), but not by orders of magnitude; --mean and --std state it",
                        Range::Signed
                    ));
                }
                return Ok((of(best, Origin::Measured), measured.to_owned(), false));
            }
            let is_untouched = facts.effect.as_ref().is_ok_and(Effect::is_nothing);
            let of_line =
                facts.line.filter(|_| is_untouched && fits.and_then(Fits::best).is_none());
            if let Some((line, range)) = of_line.and_then(|line| Some((line, line.range()?))) {
                let Line { mean, .. } = line;
                let why = format!(
                    "the biases of its first convolution are those of pixels with mean {mean:.2}"
                );
                return Ok((of(range, Origin::Measured), why, false));
            }
            let unmeasured = facts.effect.as_ref().err();
            let is_fit = fits.and_then(Fits::best) == Some(Range::Signed);
            let why = match unmeasured {
                _ if is_fit => {
                    "no operator says so, but the statistics of its training set fit".into()
                }
                Some(reason) => format!("what its first operators do was not found out ({reason})"),
                None => "nothing in the file says so".to_owned(),
            };
            (of(Range::Signed, Origin::Convention), why, !is_fit)
        }
    })
}

/// What the user states comes before what the graph does.
fn normalised_twice(facts: &Facts<'_>, said: Said, spec: &InputSpec) -> Option<String> {
    let Said::One(range, _) = said else { return None };
    let (mean, std) = range.mean_std();
    let is_near = |a: f32, b: f32| (a - b).abs() <= 0.02 * b.abs().max(1.0);
    let agrees = (0..3).all(|i| is_near(spec.mean[i], mean[i]) && is_near(spec.std[i], std[i]));
    let passed = facts.way.passed.join(", ");
    (!agrees).then(|| {
        format!(
            "the graph itself begins with {passed} and wants {range}: with what --mean and --std state, \
             {}, pixels are normalised twice",
            spec.formula()
        )
    })
}

fn order(facts: &Facts<'_>, options: &InputOptions) -> Result<Choice<ChannelOrder>, String> {
    if facts.declared.n_channels == 1 {
        return Ok((ChannelOrder::Grey, "its input has one channel".to_owned(), false));
    }
    if let Some(channels) = options.channels {
        return Ok((channels, "as stated".to_owned(), false));
    }
    if let Some(text) = metadata_value(facts.model, metadata::CHANNELS) {
        return Ok((text.parse()?, "the file's metadata say so".to_owned(), false));
    }
    let plain = facts.effect.as_ref().ok().filter(|effect| !effect.is_mixed);
    if let Some(is_red) = plain.and_then(first_is_red) {
        let channels = if is_red { ChannelOrder::Rgb } else { ChannelOrder::Bgr };
        return Ok((
            channels,
            "the means that the graph takes off are in this order".into(),
            false,
        ));
    }
    Ok(match facts.fits.as_ref().and_then(Fits::order) {
        Some(order) => (order, "it fits the statistics of the training set better".into(), false),
        None => (ChannelOrder::Rgb, "assumed, as the file does not tell".to_owned(), true),
    })
}

pub(crate) fn metadata_value<'m>(model: &'m ModelProto, key: &str) -> Option<&'m str> {
    model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// What was measured, for whoever wants to judge it.
fn evidence(facts: &Facts<'_>) -> Vec<String> {
    let list = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(", ") };
    let Declared { name, elem_type, layout, is_size_open, .. } = facts.declared;
    let mut lines = vec![
        format!(
            "input `{}`: {}, {layout:?}, its size is {}",
            name.escape_debug(),
            data_type::name(*elem_type),
            if *is_size_open { "open" } else { "fixed" },
        ),
        format!(
            "operators that keep or move pixels before the first layers ({}): {}",
            list(&facts.way.layers),
            list(&facts.way.passed)
        ),
    ];
    lines.push(match &facts.effect {
        Err(reason) => format!("what they do, on flat pictures: not measured, {reason}"),
        Ok(effect) => {
            let numbers = |values: [f64; 3]| values.map(|value| format!("{value:.5}")).join(", ");
            let bound = |value: f64| if value.is_finite() { format!("{value:.2}") } else { "none".into() };
            format!(
                "what they do, on flat pictures: x · [{}] + [{}] by channel; cut off below {} and above {}; \
                 channels {}{}",
                numbers(effect.gain),
                numbers(effect.offset),
                bound(effect.low),
                bound(effect.high),
                if effect.is_swapped { "swapped" } else { "in their order" },
                if effect.is_mixed { ", mixed" } else { "" },
            )
        }
    });
    lines.push(match &facts.fits {
        None => "statistics of the training set: none that can be measured".to_owned(),
        Some(fits) => {
            let fit = |(range, misfit): &(Range, f64)| format!("{misfit:.2} for {range}");
            let rgb: Vec<String> = fits.rgb.iter().map(fit).collect();
            let bgr = fits.bgr.map(|fit_of| format!("; {} in BGR", fit(&fit_of)));
            format!(
                "statistics of the training set, misfit of two drawn faces: {}{}",
                rgb.join(", "),
                bgr.unwrap_or_default()
            )
        }
    });
    if let Some(Line { mean, explained }) = facts.line {
        lines.push(format!(
            "biases of the first convolution, as a line over the sums of its weights: mean of the pixels \
             {mean:.3}, r² {explained:.2}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Layout,
        proto::{StringStringEntryProto, ValueInfoProto},
    };

    fn declared(elem_type: i32, n_channels: usize) -> Declared {
        Declared {
            name: "data".into(),
            value: ValueInfoProto::default(),
            elem_type,
            batch: None,
            height: 112,
            width: 112,
            is_size_open: false,
            n_channels,
            layout: Layout::Planes,
            is_layout_open: false,
            keypoints: None,
        }
    }

    fn effect(gain: f64, offset: [f64; 3]) -> Effect {
        Effect {
            gain: [gain; 3],
            offset,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            is_swapped: false,
            is_mixed: false,
            is_divided: false,
            is_quantised: false,
        }
    }

    fn metadata(entries: &[(&str, &str)]) -> ModelProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let metadata_props = entries.iter().map(entry).collect();
        ModelProto { metadata_props, ..ModelProto::default() }
    }

    /// The decision on a network of one kind of input, with an effect and fits.
    fn decided(
        model: &ModelProto,
        declared: &Declared,
        effect: Result<Effect, String>,
        fits: Option<Fits>,
        options: &InputOptions,
    ) -> Decision {
        let way = Way { passed: vec!["Sub".into()], layers: vec!["Conv".into()], ends: vec![] };
        decide(&Facts { model, declared, way, effect, fits, line: None }, options).unwrap()
    }

    fn floats(effect: Result<Effect, String>, fits: Option<Fits>) -> Decision {
        let declared = declared(data_type::FLOAT, 3);
        decided(&ModelProto::default(), &declared, effect, fits, &InputOptions::default())
    }

    #[test]
    fn metadata_win_over_the_graph_and_flags_over_both() {
        let model = metadata(&[
            (metadata::MEAN, "1 2 3"),
            (metadata::STD, "4"),
            (metadata::CHANNELS, "BGR"),
        ]);
        let subtracts = || Ok(effect(1.0, [-127.5; 3]));
        let of = |options: &InputOptions| {
            decided(&model, &declared(data_type::FLOAT, 3), subtracts(), None, options)
        };
        let spec = of(&InputOptions::default()).spec;
        assert_eq!((spec.mean, spec.std), ([1.0, 2.0, 3.0], [4.0; 3]));
        assert_eq!((spec.channels, spec.origin), (ChannelOrder::Bgr, Origin::Metadata));
        let options = InputOptions { mean: Some([9.0; 3]), ..InputOptions::default() };
        let found = of(&options);
        assert_eq!((found.spec.mean, found.spec.std), ([9.0; 3], [4.0; 3]));
        assert_eq!(found.spec.origin, Origin::Stated);
        // The graph subtracts as well, which is said.
        assert!(found.warnings[0].contains("normalised twice"), "{:?}", found.warnings);
    }

    #[test]
    fn what_the_graph_does_is_not_done_again_and_needs_no_assumption() {
        let found = floats(Ok(effect(1.0 / 127.5, [-1.0; 3])), None);
        assert_eq!((found.spec.mean, found.spec.std), ([0.0; 3], [1.0; 3]));
        assert_eq!((found.spec.origin, found.is_assumed), (Origin::Graph, [false, true]));
        assert!(found.warnings.is_empty());
        let imagenet = [-0.485, -0.456, -0.406].map(|mean| mean / 0.226);
        let found = floats(Ok(effect(1.0 / 0.226, imagenet)), None);
        assert_eq!((found.spec.std, found.spec.channels), ([255.0; 3], ChannelOrder::Rgb));
        assert_eq!(found.is_assumed, [false; 2]);
    }

    #[test]
    fn where_nothing_tells_the_convention_is_an_assumption() {
        for effect in [Ok(effect(1.0, [0.0; 3])), Err("why".to_owned())] {
            let found = floats(effect, None);
            assert_eq!((found.spec.mean, found.spec.std), ([127.5; 3], [127.5; 3]));
            assert_eq!((found.spec.origin, found.is_assumed), (Origin::Convention, [true; 2]));
        }
    }

    #[test]
    fn statistics_confirm_the_convention_or_overrule_it() {
        let fits = |fits: [f64; 4], bgr: Option<f64>| {
            let ranges = [Range::Signed, Range::Bytes, Range::Unit, Range::Centred];
            let rgb: Vec<(Range, f64)> = ranges.into_iter().zip(fits).collect();
            let best = rgb.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
            Some(Fits { rgb, bgr: bgr.map(|bgr| (best, bgr)) })
        };
        let nothing = || Ok(effect(1.0, [0.0; 3]));
        let found = floats(nothing(), fits([0.07, 6.2, 0.31, 6.1], Some(0.16)));
        assert_eq!((found.spec.origin, found.is_assumed), (Origin::Convention, [false; 2]));
        let found = floats(nothing(), fits([6.2, 0.07, 6.0, 1.9], Some(0.02)));
        assert_eq!((found.spec.std, found.spec.origin), ([1.0; 3], Origin::Measured));
        assert_eq!((found.spec.channels, found.is_assumed), (ChannelOrder::Bgr, [false; 2]));
        // Random weights fit nothing.
        let found = floats(nothing(), fits([5.0, 1.2, 4.0, 4.0], None));
        assert_eq!((found.spec.origin, found.is_assumed), (Origin::Convention, [true; 2]));
        // The graph and the statistics contradict each other.
        let found = floats(Ok(effect(1.0, [-127.5; 3])), fits([0.1, 6.2, 0.4, 6.1], None));
        assert_eq!((found.spec.origin, found.warnings.len()), (Origin::Measured, 1));
    }

    #[test]
    fn bytes_are_given_as_they_are_and_one_channel_is_grey() {
        let of = |elem_type, n_channels| {
            let declared = declared(elem_type, n_channels);
            let effect = Ok(effect(1.0, [0.0; 3]));
            let options = InputOptions::default();
            decided(&ModelProto::default(), &declared, effect, None, &options).spec
        };
        let bytes = of(data_type::UINT8, 3);
        assert_eq!((bytes.mean, bytes.std, bytes.origin), ([0.0; 3], [1.0; 3], Origin::Graph));
        let grey = of(data_type::FLOAT, 1);
        assert_eq!((grey.channels, grey.n_values()), (ChannelOrder::Grey, 112 * 112));
    }
}
