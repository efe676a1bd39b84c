//! What a file declares of its input: name, element type, sizes, and where the channels lie.

use std::collections::HashSet;

use pfc_image::align::TEMPLATE;

use crate::{
    flat::inputs_of,
    input::{ChannelOrder, FACE_SIDE, InputOptions, InputSpec, Layout, Origin, SIDE_MAX},
    proto::{Dimension, GraphProto, ValueInfoProto, data_type},
};

/// Values of a batch that a file may fix: 4 GB of f32.
const BATCH_VALUES_MAX: usize = 1 << 30;

/// The input that takes the faces.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    /// Its name in the graph.
    pub(crate) name: String,
    /// As the file describes it.
    pub(crate) value: ValueInfoProto,
    /// Element type, one of [`data_type`].
    pub(crate) elem_type: i32,
    /// Images of a batch, where the file fixes them.
    pub(crate) batch: Option<usize>,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether the file leaves height or width open, and the user states neither.
    pub(crate) is_size_open: bool,
    /// Three, or one.
    pub(crate) n_channels: usize,
    pub(crate) layout: Layout,
    /// Whether the file leaves all axes open, and the layout is to be tried.
    pub(crate) is_layout_open: bool,
    /// The input beside it that takes the landmarks of each face, if there is one.
    pub(crate) keypoints: Option<Keypoints>,
}

/// An input that takes where five landmarks of each face lie, `[N, 5, 2]` or `[N, 10]`, in shares of the sides: that of
/// networks with keypoint-relative position encodings (KP-RPE, as CVLface writes them). Faces are aligned, so
/// that these places are always the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keypoints {
    /// Its name in the graph.
    pub(crate) name: String,
    /// Element type, one of [`data_type`].
    pub(crate) elem_type: i32,
    /// Whether it is `[N, 10]`.
    pub(crate) is_flat: bool,
}

impl Keypoints {
    /// What an input is, if it is such a one.
    fn of(value: &ValueInfoProto) -> Option<Keypoints> {
        let (elem_type, sizes) = value.shape()?;
        let is_flat = match sizes[..] {
            [_, Some(5), Some(2)] => false,
            [_, Some(10)] => true,
            _ => return None,
        };
        let is_known = [data_type::FLOAT, data_type::FLOAT16].contains(&elem_type);
        is_known.then(|| Keypoints { name: value.name.clone(), elem_type, is_flat })
    }

    /// The places of aligned faces, of `n` of them.
    pub(crate) fn values(&self, n: usize) -> Vec<f32> {
        let side = FACE_SIDE as f64;
        let places = TEMPLATE.iter().flatten().map(|place| (place / side) as f32);
        places.collect::<Vec<f32>>().repeat(n)
    }
}

impl Declared {
    /// What is given to this input, with pixels that are normalised so.
    pub(crate) fn spec(
        &self,
        (mean, std): ([f32; 3], [f32; 3]),
        channels: ChannelOrder,
    ) -> InputSpec {
        let channels = if self.n_channels == 1 { ChannelOrder::Grey } else { channels };
        InputSpec {
            height: self.height,
            width: self.width,
            channels,
            layout: self.layout,
            mean,
            std,
            origin: Origin::Convention,
        }
    }

    /// The one input of `graph`; `options` state a size that it leaves open.
    ///
    /// # Errors
    ///
    /// Why it takes no images.
    pub(crate) fn of(graph: &GraphProto, options: &InputOptions) -> Result<Declared, String> {
        Declared::within(graph, options, SIDE_MAX)
    }

    /// As [`of`](Declared::of), of pictures with sides of up to `side_max`.
    ///
    /// # Errors
    ///
    /// Why it takes no images.
    pub(crate) fn within(
        graph: &GraphProto,
        options: &InputOptions,
        side_max: usize,
    ) -> Result<Declared, String> {
        let inputs = inputs(graph);
        let (others, keypoints): (Vec<_>, Vec<_>) =
            inputs.iter().copied().partition(|input| Keypoints::of(input).is_none());
        let (input, keypoints) = match (&others[..], &keypoints[..]) {
            ([], []) => return Err("the graph takes no input".to_owned()),
            ([input], []) => (*input, None),
            ([input], [keypoints]) => (*input, Keypoints::of(keypoints)),
            _ => {
                let listed: Vec<String> = inputs.iter().map(|input| describe(input)).collect();
                let (n, s) = (inputs.len(), if inputs.len() == 1 { "" } else { "s" });
                return Err(format!("it has {n} input{s}, {}", listed.join(" and ")));
            }
        };
        let (elem_type, sizes) = input.shape().ok_or("its shape is not stated")?;
        const KNOWN: [i32; 5] = [
            data_type::FLOAT,
            data_type::FLOAT16,
            data_type::BFLOAT16,
            data_type::DOUBLE,
            data_type::UINT8,
        ];
        if !KNOWN.contains(&elem_type) {
            let name = data_type::name(elem_type);
            return Err(format!("its elements are {name}, not f32, f16, bf16, f64 or u8"));
        }
        let &[batch, a, b, c] = &sizes[..] else {
            return Err(format!("{} has {} dimensions, not 4", describe(input), sizes.len()));
        };
        let (layout, n_channels) = match (a, b, c) {
            (Some(3), ..) => (Layout::Planes, 3),
            (.., Some(3)) => (Layout::Pixels, 3),
            (Some(1), ..) => (Layout::Planes, 1),
            (.., Some(1)) => (Layout::Pixels, 1),
            (None, ..) => (Layout::Planes, 3),
            (Some(_), Some(_), None) => (Layout::Pixels, 3),
            _ => {
                let shape = describe(input);
                return Err(format!("none of the dimensions of {shape} is the 3 channels, or 1"));
            }
        };
        let sides = match layout {
            Layout::Planes => [b, c],
            Layout::Pixels => [a, b],
        };
        let side = |fixed: Option<usize>, i: usize| {
            let side = fixed.or(options.size.map(|size| size[i])).unwrap_or(FACE_SIDE);
            let too_large = || format!("its side of {side} is too large, more than {side_max}");
            if side <= side_max { Ok(side) } else { Err(too_large()) }
        };
        let (height, width) = (side(sides[0], 0)?, side(sides[1], 1)?);
        let n_values = batch.unwrap_or(1).checked_mul(n_channels * height * width);
        if n_values.is_none_or(|n_values| n_values > BATCH_VALUES_MAX) {
            let batch = batch.unwrap_or(1);
            return Err(format!("its batch of {batch} is more than {BATCH_VALUES_MAX} values"));
        }
        Ok(Declared {
            name: input.name.clone(),
            value: input.clone(),
            elem_type,
            batch,
            height,
            width,
            is_size_open: sides.contains(&None) && options.size.is_none(),
            n_channels,
            layout,
            is_layout_open: [a, b, c] == [None; 3],
            keypoints,
        })
    }

    /// Values of one image whose channels are flat.
    pub(crate) fn flat(&self, channels: [f32; 3]) -> Vec<f32> {
        let channels = &channels[..self.n_channels];
        let area = self.height * self.width;
        match self.layout {
            Layout::Planes => channels.iter().flat_map(|&c| std::iter::repeat_n(c, area)).collect(),
            Layout::Pixels => channels.repeat(area),
        }
    }

    /// Values of a batch that holds `image` and nothing else: one image, or as many as are fixed.
    pub(crate) fn batch_of(&self, image: &[f32]) -> (usize, Vec<f32>) {
        let n = self.batch.unwrap_or(1);
        (n, image.repeat(n))
    }
}

/// Inputs that somebody has to give: old files list their weights as inputs too, and tools that replace
/// weights leave the inputs of the old ones behind, which no node takes.
fn inputs(graph: &GraphProto) -> Vec<&ValueInfoProto> {
    let (weights, stale) = (weights(graph), stale_inputs(graph));
    let is_given = |name: &str| !weights.contains(name) && !stale.contains(name);
    graph.input.iter().filter(|input| is_given(&input.name)).collect()
}

fn weights(graph: &GraphProto) -> HashSet<&str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref());
    graph.initializer.iter().chain(sparse).map(|tensor| tensor.name.as_str()).collect()
}

/// Names of inputs that nothing takes and nobody gives: weights of another time, whose sizes are fixed. One
/// that is as long as the batch is meant to be given.
pub(crate) fn stale_inputs(graph: &GraphProto) -> HashSet<String> {
    let weights = weights(graph);
    let is_fixed = |input: &&ValueInfoProto| {
        input.shape().is_none_or(|(_, sizes)| sizes.iter().all(|size| size.is_some()))
    };
    let mut taken: HashSet<String> = graph.node.iter().flat_map(inputs_of).collect();
    taken.extend(graph.output.iter().map(|output| output.name.clone()));
    let inputs = graph.input.iter().filter(is_fixed).map(|input| &input.name);
    inputs
        .filter(|name| !weights.contains(name.as_str()) && !taken.contains(*name))
        .cloned()
        .collect()
}

/// `data` [N, 3, 112, 112], as in the file.
fn describe(value: &ValueInfoProto) -> String {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let sizes = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
        let size = |dim: &crate::proto::DimensionProto| match &dim.value {
            Some(Dimension::Value(size)) => size.to_string(),
            Some(Dimension::Param(name)) if !name.is_empty() => name.escape_debug().to_string(),
            _ => "?".to_owned(),
        };
        shape.dim.iter().map(size).collect::<Vec<_>>().join(", ")
    });
    format!("`{}` [{}]", value.name.escape_debug(), sizes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{NodeProto, TensorProto};

    fn graph(inputs: &[(&str, &[Result<i64, &str>])], taken: &[&str]) -> GraphProto {
        let value = |(name, sizes): &(&str, &[Result<i64, &str>])| {
            ValueInfoProto::tensor(name, data_type::FLOAT, sizes)
        };
        let input = taken.iter().map(|name| (*name).to_owned()).collect();
        GraphProto {
            input: inputs.iter().map(value).collect(),
            node: vec![NodeProto { input, ..NodeProto::default() }],
            ..GraphProto::default()
        }
    }

    fn of(sizes: &[Result<i64, &str>]) -> Result<Declared, String> {
        Declared::of(&graph(&[("data", sizes)], &["data"]), &InputOptions::default())
    }

    #[test]
    fn the_layout_and_a_fixed_batch_are_told_from_the_shape() {
        let found = of(&[Ok(8), Ok(128), Ok(96), Ok(3)]).unwrap();
        assert_eq!((found.batch, found.layout), (Some(8), Layout::Pixels));
        assert_eq!((found.height, found.width, found.n_channels), (128, 96, 3));
        let open: &[_] = &[Err("n"), Ok(3), Err("h"), Err("w")];
        let options = InputOptions { size: Some([224, 160]), ..InputOptions::default() };
        let found = Declared::of(&graph(&[("data", open)], &["data"]), &options).unwrap();
        assert_eq!((found.height, found.width, found.is_size_open), (224, 160, false));
        assert!(of(open).unwrap().is_size_open);
        let grey = of(&[Err("n"), Ok(1), Ok(128), Ok(128)]).unwrap();
        assert_eq!((grey.n_channels, grey.layout), (1, Layout::Planes));
        let grey = of(&[Err("n"), Ok(128), Ok(128), Ok(1)]).unwrap();
        assert_eq!((grey.n_channels, grey.layout), (1, Layout::Pixels));
        assert!(of(&[Err("n"), Err("c"), Err("h"), Err("w")]).unwrap().is_layout_open);
    }

    #[test]
    fn weights_and_inputs_that_nothing_takes_are_not_counted() {
        let face: &[_] = &[Ok(1), Ok(3), Ok(112), Ok(112)];
        let mut graph =
            graph(&[("w", &[Ok(8)]), ("data", face), ("left", &[Ok(2)])], &["data", "w"]);
        graph.initializer.push(TensorProto { name: "w".into(), ..TensorProto::default() });
        let found = Declared::of(&graph, &InputOptions::default()).unwrap();
        assert_eq!(found.name, "data");
        assert_eq!(stale_inputs(&graph), HashSet::from(["left".to_owned()]));
    }

    #[test]
    fn inputs_that_are_no_faces_are_refused_by_name_and_shape() {
        let refuse = |sizes: &[Result<i64, &str>]| of(sizes).unwrap_err();
        assert_eq!(refuse(&[Ok(1), Ok(512)]), "`data` [1, 512] has 2 dimensions, not 4");
        assert!(refuse(&[Ok(1), Ok(4), Ok(112), Ok(112)]).contains("`data` [1, 4, 112, 112]"));
        assert!(refuse(&[Ok(1), Ok(3), Ok(1 << 40), Ok(112)]).contains("too large"));
        assert!(refuse(&[Ok(1 << 40), Ok(3), Ok(112), Ok(112)]).contains("its batch of"));
        assert!(refuse(&[Ok(i64::MAX), Ok(3), Ok(112), Ok(112)]).contains("its batch of"));
        let face: &[_] = &[Err("N"), Ok(3), Ok(112), Ok(112)];
        let two = |sizes: &[Result<i64, &str>]| {
            let graph = graph(&[("data", face), ("age", sizes)], &["data", "age"]);
            Declared::of(&graph, &InputOptions::default()).unwrap_err()
        };
        assert_eq!(
            two(&[Err("N"), Ok(1)]),
            "it has 2 inputs, `data` [N, 3, 112, 112] and `age` [N, 1]"
        );
        assert!(two(face).starts_with("it has 2 inputs, "));
        assert_eq!(of(&[Err("N"), Ok(5), Ok(2)]).unwrap_err(), "it has 1 input, `data` [N, 5, 2]");
    }

    #[test]
    fn keypoints_are_given_the_places_of_aligned_faces() {
        let face: &[_] = &[Err("N"), Ok(3), Ok(112), Ok(112)];
        for (sizes, is_flat) in [(&[Err("N"), Ok(5), Ok(2)][..], false), (&[Ok(1), Ok(10)], true)] {
            let graph = graph(&[("points", sizes), ("data", face)], &["data", "points"]);
            let found = Declared::of(&graph, &InputOptions::default()).unwrap();
            let keypoints = found.keypoints.unwrap();
            assert_eq!((&found.name[..], &keypoints.name[..]), ("data", "points"));
            assert_eq!(keypoints.is_flat, is_flat);
            let values = keypoints.values(2);
            // InsightFace's template: the left eye, and the right corner of the mouth.
            let is_near = |i: usize, place: f32| (values[i] * 112.0 - place).abs() < 1e-4;
            assert!(values.len() == 20 && is_near(0, 38.2946) && is_near(11, 51.6963));
            assert!(is_near(8, 70.7299) && is_near(19, 92.2041));
        }
    }
}
