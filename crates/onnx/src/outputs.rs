//! Which of a network's outputs is the embedding, or the score of a face.

use crate::{flat::Flat, network::Output};

/// Numbers of an embedding; more are an image or a feature map.
const DIM_MAX: usize = 65_536;
/// What published embeddings have.
const USUAL_DIMS: std::ops::RangeInclusive<usize> = 64..=4096;

/// The output that is taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) dim: usize,
    /// Why this one, where there are others.
    pub(crate) why: Option<String>,
    pub(crate) warning: Option<String>,
}

/// Why none is taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// None is an embedding.
    None(String),
    /// Several may be.
    Several(String),
    /// There is none of the name that the user gave.
    NoSuch(String),
}

/// The embedding among `outputs`, which are those of a run of `n_rows` images; `named` is what the user
/// says.
///
/// # Errors
///
/// [`Refusal`], with all outputs and their shapes.
pub(crate) fn choose(
    outputs: &[Output],
    n_rows: usize,
    flat: &Flat<'_>,
    named: Option<&str>,
) -> Result<Chosen, Refusal> {
    let list: Vec<String> = outputs.iter().map(describe).collect();
    let list = list.join(", ");
    let rows: Vec<(&Output, usize)> =
        outputs.iter().filter_map(|output| Some((output, row_length(output, n_rows)?))).collect();
    let chosen = |output: &Output, dim: usize, why: Option<String>| Chosen {
        name: output.name.clone(),
        dim,
        why,
        warning: unusual(dim),
    };
    if let Some(named) = named {
        if !outputs.iter().any(|output| output.name == named) {
            return Err(Refusal::NoSuch(format!("there is no output `{named}` among {list}")));
        }
        let found = rows.iter().find(|(output, _)| output.name == named);
        let (output, dim) = found
            .ok_or_else(|| Refusal::None(format!("`{named}` is no row of numbers: {list}")))?;
        return Ok(chosen(output, *dim, Some("as stated".to_owned())));
    }
    let rank = |output: &Output| {
        if ends_in_softmax(flat, &output.name) { SOFTMAX } else { rank_of_name(&output.name) }
    };
    let mut ranked: Vec<(i32, &Output, usize)> =
        rows.into_iter().map(|(output, dim)| (rank(output), output, dim)).collect();
    ranked.sort_by_key(|(rank, ..)| -rank);
    let is_of_detector = is_of_detector(outputs) && ranked.first().is_none_or(|best| best.0 <= 0);
    match ranked[..] {
        _ if is_of_detector => {
            Err(Refusal::None(format!("its outputs look like those of a detector, {list}")))
        }
        [] => Err(Refusal::None(list)),
        [(rank, output, _), ..] if rank <= NO_EMBEDDING => {
            let what = if rank == SOFTMAX { "ends in a softmax" } else { "is named so" };
            let name = output.name.escape_debug();
            let reason = format!("`{name}` is that of a classifier or detector, it {what}: {list}");
            Err(Refusal::None(reason))
        }
        [(rank, output, dim)] => {
            let why = (outputs.len() > 1).then(|| format!("the only row of numbers among {list}"));
            let doubtful = format!("its output `{}` may be no embedding, by its name", output.name);
            let chosen = chosen(output, dim, why);
            let warning = chosen.warning.clone().or((rank < 0).then_some(doubtful));
            Ok(Chosen { warning, ..chosen })
        }
        [(first, output, dim), (second, ..), ..] if first > second => {
            Ok(chosen(output, dim, Some(format!("by its name among {list}"))))
        }
        _ => {
            let best = ranked[0].0;
            let usual = |(rank, _, dim): &&(i32, &Output, usize)| {
                *rank == best && USUAL_DIMS.contains(dim) && unusual(*dim).is_none()
            };
            let mut usual = ranked.iter().filter(usual);
            match (usual.next(), usual.next()) {
                (Some((_, output, dim)), None) => {
                    Ok(chosen(output, *dim, Some(format!("by its shape among {list}"))))
                }
                _ => Err(Refusal::Several(list)),
            }
        }
    }
}

/// The score among `outputs`, which are those of a run of `n_rows` images: one number for each image; `named` is
/// what the user says.
///
/// # Errors
///
/// [`Refusal`], with all outputs and their shapes.
pub(crate) fn choose_score(
    outputs: &[Output],
    n_rows: usize,
    named: Option<&str>,
) -> Result<Chosen, Refusal> {
    let list: Vec<String> = outputs.iter().map(describe).collect();
    let list = list.join(", ");
    let is_score = |output: &&Output| {
        let is_row =
            output.shape.iter().filter(|&&side| side != 1).count() <= usize::from(n_rows > 1);
        output.values.as_ref().is_ok_and(|values| is_row && values.len() == n_rows)
    };
    let chosen = |output: &Output, why: Option<String>| Chosen {
        name: output.name.clone(),
        dim: 1,
        why,
        warning: None,
    };
    if let Some(named) = named {
        let Some(output) = outputs.iter().find(|output| output.name == named) else {
            return Err(Refusal::NoSuch(format!("there is no output `{named}` among {list}")));
        };
        return match is_score(&output) {
            true => Ok(chosen(output, Some("as stated".to_owned()))),
            false => Err(Refusal::None(format!("`{named}` is not one number a face: {list}"))),
        };
    }
    let scores: Vec<&Output> = outputs.iter().filter(is_score).collect();
    let is_named_so = |output: &&&Output| {
        let name = output.name.to_lowercase();
        ["qual", "score", "fiq", "qs"].iter().any(|part| name.contains(part))
    };
    let mut by_name = scores.iter().filter(is_named_so);
    match (&scores[..], by_name.next(), by_name.next()) {
        ([], ..) => Err(Refusal::None(format!("none is one number a face: {list}"))),
        ([output], ..) => {
            let why = (outputs.len() > 1).then(|| format!("the only number a face among {list}"));
            Ok(chosen(output, why))
        }
        (_, Some(output), None) => Ok(chosen(output, Some(format!("by its name among {list}")))),
        _ => Err(Refusal::Several(list)),
    }
}

/// Rank of a name that is none of an embedding.
const NO_EMBEDDING: i32 = -2;
/// Rank of what ends in a softmax.
const SOFTMAX: i32 = -3;

/// `embedding` [N, 512].
fn describe(output: &Output) -> String {
    let name = output.name.escape_debug();
    match &output.values {
        Ok(_) => format!("`{name}` {:?}", output.shape),
        Err(what) => format!("`{name}` of {what}"),
    }
}

/// Numbers of each of `n_rows` rows, if the output has one row of at least two for each image.
fn row_length(output: &Output, n_rows: usize) -> Option<usize> {
    let dim = output.values.as_ref().ok()?.len() / n_rows;
    // [N, D], or with sides of 1 behind; [D] where the batch was squeezed away.
    let n_long = output.shape.iter().filter(|&&side| side != 1).count();
    let is_row = match output.shape[..] {
        [_] => true,
        [first, ..] => first == n_rows as i64 && n_long <= 1 + usize::from(n_rows > 1),
        [] => false,
    };
    (is_row && (2..=DIM_MAX).contains(&dim)).then_some(dim)
}

/// How well a name suits an embedding, below 0 for what it is not.
fn rank_of_name(name: &str) -> i32 {
    let name = name.to_lowercase();
    let contains = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    const NONE: &[&str] = &[
        "logit", "prob", "softmax", "class", "cls", "landmark", "lmk", "kps", "keypoint", "bbox",
        "boxes", "score", "anchor", "heatmap", "gender",
    ];
    const DOUBTFUL: &[&str] = &["conf", "pose", "quality", "norm", "pred", "recon"];
    if contains(&["embed"]) {
        4
    } else if contains(NONE) {
        NO_EMBEDDING
    } else if contains(&["feat", "fc1"]) {
        3
    } else if contains(DOUBTFUL) && !contains(&["normed", "normali", "_norm", "norm_"]) {
        -1
    } else {
        i32::from(name == "output")
    }
}

/// Whether most outputs hold something for each of many places of a picture, as scores and boxes.
fn is_of_detector(outputs: &[Output]) -> bool {
    let is_by_place = |output: &&Output| {
        let mut longest: Vec<i64> = output.shape.clone();
        longest.sort_unstable();
        matches!(longest[..], [.., second, first] if first >= 64 && (second > 1 || longest.len() > 2))
            || longest
                .last()
                .is_some_and(|&side| side > 4096 && output.shape.first() == Some(&side))
    };
    outputs.len() >= 3 && 2 * outputs.iter().filter(is_by_place).count() > outputs.len()
}

/// Whether an output is that of a softmax.
fn ends_in_softmax(flat: &Flat<'_>, name: &str) -> bool {
    let mut name = name;
    for _ in 0..8 {
        let Some(node) = flat.maker(name) else { return false };
        match node.op_type.as_str() {
            "Softmax" | "LogSoftmax" | "ArgMax" | "TopK" => return true,
            "Identity" | "Cast" | "Reshape" | "Squeeze" | "Flatten" | "Dropout" => {
                let Some(first) = node.input.first() else { return false };
                name = first;
            }
            _ => return false,
        }
    }
    false
}

/// What to say of a length that no published embedding has.
fn unusual(dim: usize) -> Option<String> {
    let what = match dim {
        0..16 => "attributes such as age and gender, or boxes",
        136 => "68 landmarks",
        204 => "68 landmarks in space",
        196 => "98 landmarks",
        212 => "106 landmarks",
        3309 => "1103 points of a face's surface",
        _ => return None,
    };
    Some(format!("its output has {dim} numbers, as networks have that give {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, ModelProto, NodeProto};

    fn output(name: &str, shape: &[i64]) -> Output {
        let n = shape.iter().product::<i64>() as usize;
        Output { name: name.into(), shape: shape.to_vec(), values: Ok(vec![0.0; n]) }
    }

    fn chosen(outputs: &[Output], named: Option<&str>) -> Result<Chosen, Refusal> {
        let (model, graph) = (ModelProto::default(), GraphProto::default());
        choose(outputs, 1, &Flat::of(&model, &graph).unwrap(), named)
    }

    #[track_caller]
    fn check(outputs: &[(&str, &[i64])], expected: &str) {
        let outputs: Vec<Output> =
            outputs.iter().map(|(name, shape)| output(name, shape)).collect();
        assert_eq!(chosen(&outputs, None).unwrap().name, expected);
    }

    #[test]
    fn the_embedding_is_taken_by_name_and_by_shape() {
        check(&[("fc1", &[1, 512])], "fc1");
        check(&[("683", &[1, 512, 1, 1])], "683");
        check(&[("landmarks", &[1, 10]), ("embedding", &[1, 147])], "embedding");
        check(&[("logits", &[1, 8000]), ("embedding", &[1, 512])], "embedding");
        check(&[("norm", &[1, 1]), ("feature", &[1, 512])], "feature");
        check(&[("683", &[1, 512]), ("684", &[1, 1])], "683");
        check(&[("683", &[1, 10]), ("684", &[1, 512])], "684");
        check(&[("map", &[1, 64, 7, 7]), ("out", &[1, 512])], "out");
        check(&[("normed_feature", &[1, 512])], "normed_feature");
    }

    #[test]
    fn what_cannot_be_told_is_listed_and_taken_by_name() {
        let two = [output("683", &[1, 512]), output("684", &[1, 512])];
        let Err(Refusal::Several(list)) = chosen(&two, None) else { panic!() };
        assert_eq!(list, "`683` [1, 512], `684` [1, 512]");
        assert_eq!(chosen(&two, Some("684")).unwrap().name, "684");
        assert!(matches!(chosen(&two, Some("x")), Err(Refusal::NoSuch(_))));
        assert!(matches!(chosen(&[output("a", &[1, 5, 5])], Some("a")), Err(Refusal::None(_))));
    }

    #[test]
    fn the_score_is_the_one_number_a_face() {
        let score = |outputs: &[(&str, &[i64])], named: Option<&str>| {
            let outputs: Vec<Output> = outputs.iter().map(|(n, shape)| output(n, shape)).collect();
            choose_score(&outputs, 1, named).map(|chosen| (chosen.name, chosen.dim))
        };
        let is = |name: &str| Ok((name.to_owned(), 1));
        assert_eq!(score(&[("output", &[1, 1])], None), is("output"));
        assert_eq!(score(&[("683", &[1, 512]), ("684", &[1, 1, 1, 1])], None), is("684"));
        let two: [(&str, &[i64]); 2] = [("norm", &[1, 1]), ("quality", &[1])];
        assert_eq!(score(&two, None), is("quality"));
        assert_eq!(score(&two, Some("norm")), is("norm"));
        let several = score(&[("a", &[1, 1]), ("b", &[1, 1])], None);
        assert_eq!(several, Err(Refusal::Several("`a` [1, 1], `b` [1, 1]".to_owned())));
        for (outputs, named) in
            [(("fc1", &[1, 512][..]), None), (("fc1", &[1, 2][..]), Some("fc1"))]
        {
            assert!(matches!(score(&[outputs], named), Err(Refusal::None(_))));
        }
        assert!(matches!(score(&two, Some("x")), Err(Refusal::NoSuch(_))));
    }

    #[test]
    fn classifiers_and_detectors_are_refused() {
        let refuse = |name: &str, shape: &[i64]| {
            assert!(
                matches!(chosen(&[output(name, shape)], None), Err(Refusal::None(_))),
                "{name}"
            );
        };
        refuse("logits", &[1, 1000]);
        refuse("landmarks", &[1, 212]);
        refuse("boxes", &[1, 6400, 4]);
        let of_detector = |shapes: &[&[i64]]| {
            let names = ["448", "471", "494", "451", "474", "497"];
            let outputs: Vec<Output> =
                names.iter().zip(shapes).map(|(name, shape)| output(name, shape)).collect();
            let Err(Refusal::None(reason)) = chosen(&outputs, None) else { panic!("{shapes:?}") };
            assert!(reason.contains("a detector"), "{reason}");
        };
        // SCRFD, YuNet, RetinaFace.
        of_detector(&[&[12800, 1], &[3200, 1], &[800, 1], &[12800, 4], &[3200, 4], &[800, 4]]);
        of_detector(&[&[1, 6400, 1], &[1, 1600, 1], &[1, 6400, 4], &[1, 1600, 4]]);
        of_detector(&[&[1, 16800, 4], &[1, 16800, 2], &[1, 16800, 10]]);
        let names = |name: &str| vec![name.to_owned()];
        let softmax = NodeProto {
            op_type: "Softmax".into(),
            input: names("a"),
            output: names("y"),
            ..NodeProto::default()
        };
        let graph = GraphProto { node: vec![softmax], ..GraphProto::default() };
        let model = ModelProto::default();
        let flat = Flat::of(&model, &graph).unwrap();
        assert!(matches!(choose(&[output("y", &[1, 100])], 1, &flat, None), Err(Refusal::None(_))));
        let strange = chosen(&[output("fc1", &[1, 212])], None).unwrap();
        assert!(strange.warning.unwrap().contains("106 landmarks"));
    }
}
