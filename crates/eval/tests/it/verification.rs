//! The library on drawn faces, without a network.

use std::path::Path;

use crate::support::{Colours, LfwLike, draw_face};
use pfc_metrics::{bootstrap::Bootstrap, roc::Far};
use pfc_model::MirroredEmbeddings;
use pfc_verify::{
    Opening, Options, PairsSet, VerifyError, evaluate,
    pairs::{PairList, Protocol},
};

fn open(set: &LfwLike, list: &str) -> Result<PairsSet, VerifyError> {
    PairsSet::open(&set.path("faces"), &set.path(list), Opening::default())
}

#[test]
fn faces_of_one_colour_scheme_are_told_from_others() {
    let set = open(&LfwLike::new(), "pairs.txt").unwrap();
    let report = evaluate(&Colours, &set, &Options::default()).unwrap();
    assert_eq!((report.n_pairs, report.n_genuine, report.n_impostor), (40, 20, 20));
    assert_eq!((report.n_people, report.accuracy.folds.len()), (20, 10));
    assert!(report.accuracy.mean > 0.9, "{report:?}");
    assert!(report.auc.unwrap().value > 0.98);
    assert_eq!(report.accuracy.interval, None);
}

#[test]
fn a_path_of_a_pair_that_leads_out_of_the_folder_is_an_error_of_its_line() {
    let set = LfwLike::new();
    let outside = set.path("outside.png");
    draw_face(&outside, 1, 1, 112);
    for path in ["../outside.png", "P00/../../outside.png", outside.to_str().unwrap()] {
        let list = format!("P00/P00_0001.png P00/P00_0002.png 1\nP00/P00_0001.png {path} 0\n");
        std::fs::write(set.path("paths.txt"), list).unwrap();
        let error = open(&set, "paths.txt").unwrap_err();
        assert!(matches!(error, VerifyError::Line { line: 2, .. }), "{path}: {error:?}");
        assert!(error.to_string().contains("leads out of the folder"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_whose_name_is_not_utf8_has_its_images() {
    use std::os::unix::ffi::OsStrExt;
    let set = LfwLike::new();
    let folder = set.dir.path().join(std::ffi::OsStr::from_bytes(b"Jos\xe9"));
    std::fs::rename(set.path("faces"), &folder).unwrap();
    let opened = PairsSet::open(&folder, &set.path("single.txt"), Opening::default()).unwrap();
    assert_eq!(opened.n_pairs(), 20);
}

#[test]
fn a_single_list_is_judged_by_its_own_best_threshold() {
    let set = open(&LfwLike::new(), "single.txt").unwrap();
    let report = evaluate(&Colours, &set, &Options::default()).unwrap();
    assert_eq!(report.protocol, Protocol::SingleList);
    assert_eq!((report.accuracy.std, report.val), (None, None));
    assert!(report.accuracy.folds.is_empty());
}

#[test]
fn parts_embedded_apart_are_judged_as_one() {
    let set = open(&LfwLike::new(), "pairs.txt").unwrap();
    let n = set.n_images();
    let mut joined = MirroredEmbeddings { original: Vec::new(), mirrored: Vec::new() };
    for range in [0..n / 3, n / 3..n] {
        let part = set.embed(&Colours, range, &mut |_| Ok::<_, VerifyError>(())).unwrap();
        joined.original.extend(part.original);
        joined.mirrored.extend(part.mirrored);
    }
    let options = Options::default();
    let whole = evaluate(&Colours, &set, &options).unwrap();
    assert_eq!(set.judge(&joined, &options).unwrap().report, whole);
}

#[test]
fn a_rate_finer_than_the_set_is_marked_and_not_zero() {
    let set = open(&LfwLike::new(), "pairs.txt").unwrap();
    let report = evaluate(&Colours, &set, &Options::default()).unwrap();
    let tars: Vec<(Option<bool>, u64)> =
        report.tar_at_far.iter().map(|r| (r.tar.map(|t| t > 0.5), r.n_impostors_allowed)).collect();
    assert_eq!(tars, [(Some(true), 2), (None, 0), (None, 0)]);
}

#[test]
fn intervals_hold_their_figures() {
    let set = open(&LfwLike::new(), "pairs.txt").unwrap();
    let options = Options {
        bootstrap: Bootstrap { n_replicates: 200, ..Bootstrap::default() },
        fars: vec![Far::new(0.2).unwrap()],
        pca: Some(4),
    };
    let report = evaluate(&Colours, &set, &options).unwrap();
    let interval = report.accuracy.interval.unwrap();
    assert!(interval.low <= report.accuracy.mean && report.accuracy.mean <= interval.high);
    let auc = report.auc.unwrap();
    assert!(auc.interval.unwrap().low <= auc.value);
    assert!(report.tar_at_far[0].interval.is_some());
    assert_eq!(report.pca.unwrap().components, 4);
}

#[test]
fn a_list_of_one_class_gives_no_curve() {
    let files = LfwLike::new();
    let line = |i: usize| format!("P{i:02}/P{i:02}_0001.png P{i:02}/P{i:02}_0002.png 1\n");
    std::fs::write(files.path("same.txt"), (0..10).map(line).collect::<String>()).unwrap();
    let set = open(&files, "same.txt").unwrap();
    let report = evaluate(&Colours, &set, &Options::default()).unwrap();
    assert_eq!((report.n_impostor, report.auc, report.eer, report.val), (0, None, None, None));
    assert_eq!(report.accuracy.mean, 1.0);
}

#[test]
fn images_of_other_sizes_and_formats_are_taken() {
    let files = LfwLike::new();
    std::fs::remove_file(files.path("faces/P00/P00_0001.png")).unwrap();
    draw_face(&files.path("faces/P00/P00_0001.bmp"), 0, 1, 250);
    let set = open(&files, "pairs.txt").unwrap();
    assert_eq!(set.faces().changes().resized, 1);
    assert!(evaluate(&Colours, &set, &Options::default()).unwrap().accuracy.mean > 0.9);
}

#[test]
fn missing_images_are_counted_and_the_first_is_named() {
    let files = LfwLike::new();
    std::fs::remove_file(files.path("faces/P03/P03_0002.png")).unwrap();
    std::fs::remove_file(files.path("faces/P05/P05_0002.png")).unwrap();
    let error = open(&files, "pairs.txt").unwrap_err().to_string();
    assert!(error.contains("2 of 60 images"), "{error}");
    assert!(error.contains("first `P03/P03_0002.jpg` (line 7)"), "{error}");
}

#[test]
fn broken_embeddings_are_an_error_and_not_a_figure() {
    let set = open(&LfwLike::new(), "pairs.txt").unwrap();
    let judge = |values: Vec<f32>| {
        let embeddings = MirroredEmbeddings { mirrored: values.clone(), original: values };
        set.judge(&embeddings, &Options::default()).unwrap_err().to_string()
    };
    assert_eq!(judge(vec![1.0; 7]), "7 embedding values cannot be shared among 60 images");
    let mut values = vec![1.0; 120];
    values[65] = f32::NAN;
    assert_eq!(judge(values), "embedding value 65 is NaN, not a finite number");
}

#[test]
fn damaged_lists_are_errors_or_lists_and_never_panics() {
    let files = LfwLike::new();
    let mut lists: Vec<Vec<u8>> =
        ["pairs.txt", "single.txt"].map(|name| std::fs::read(files.path(name)).unwrap()).into();
    lists.push(b"a/1.png b/1.png 0\na/1.png a/2.png 1\n".repeat(5));
    lists.push(b"Ann_0001.jpg 3\nAnn_0002.jpg 3\nAnn_0001.jpg 0\nBo_0001.jpg 0\n".to_vec());
    let mut state = 1_u64;
    let mut random = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..4000 {
        let mut bytes = lists[random(4)].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = b"\t\n 0\xff9-_"[random(8)],
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"\t\n 0\xff9-_"[random(8)]),
            }
        }
        if let Ok(list) = PairList::parse(Path::new("list"), &bytes) {
            let n = list.images.len() as u32;
            assert!(list.pairs.iter().all(|pair| pair.left < n && pair.right < n));
        }
    }
}

#[test]
fn a_pca_of_a_single_list_is_refused() {
    let set = open(&LfwLike::new(), "single.txt").unwrap();
    let options = Options { pca: Some(4), ..Options::default() };
    let error = evaluate(&Colours, &set, &options).unwrap_err().to_string();
    assert_eq!(error, "a PCA to 4 dimensions needs the ten folds that a single list lacks");
}

#[test]
fn a_list_of_pairs_names_images_below_its_folder_alone() {
    let set = LfwLike::new();
    let faces = set.path("faces");
    let refused = |path: &str| {
        let list = format!("a.png\tb.png\t1\n{path}\tb.png\t0\n");
        std::fs::write(set.path("out.txt"), list).unwrap();
        let error = open(&set, "out.txt").unwrap_err();
        (error.to_string(), error.hint())
    };
    for name in ["secret.png", "faces/a.png", "faces/b.png"] {
        draw_face(&set.path(name), 1, 1, 112);
    }
    let secret = set.path("secret.png").display().to_string();
    for path in ["../secret.png", "x/../../secret.png", &secret] {
        let (error, hint) = refused(path);
        let expected =
            format!("out.txt:2: the path `{path}` leads out of the folder of the images");
        assert!(error.ends_with(&expected), "{error}");
        assert!(hint.unwrap().contains("the folder that holds all of them"));
    }
    let inside = faces.join("a.png").display().to_string();
    for path in ["./a.png", "x/../a.png", &inside] {
        std::fs::write(set.path("in.txt"), format!("{path}\tb.png\t1\n")).unwrap();
        assert_eq!(open(&set, "in.txt").unwrap().image_name(0), "a.png", "{path}");
    }
}
