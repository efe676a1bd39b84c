//! What a state dict's pickle may import.

use crate::Dtype;

/// A name that may be imported, with a meaning written here. Nothing is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`, and dictionaries with some convenience.
    Dict,
    /// `collections.deque`.
    List,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: a view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that learns.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a tensor with attributes.
    RebuildFromType,
    /// `torch.Size`: a tuple.
    Size,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// A class of a TorchScript program: its objects are dictionaries of their attributes.
    Module,
    /// `torch.jit._pickle`: what gives a list back with its type.
    Typed,
    /// What trainers keep beside the weights: settings, random states, paths, numbers. Its objects stand
    /// for nothing.
    Opaque,
}

/// Packages whose objects are kept beside weights and matter to nobody who wants these.
const OPAQUE: [&str; 24] = [
    "addict",
    "argparse",
    "box",
    "datetime",
    "decimal",
    "easydict",
    "enum",
    "fractions",
    "lightning",
    "lightning_fabric",
    "ml_collections",
    "mmcv",
    "mmengine",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "timm",
    "transformers",
    "types",
    "typing",
    "uuid",
    "yacs",
    "zoneinfo",
];

/// Types of Python 2 and 3 themselves; their functions are none of them.
const BUILTINS: [&str; 18] = [
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
    "xrange",
];

impl Global {
    pub(crate) fn named(module: &str, name: &str) -> Option<Global> {
        let package = module.split('.').next().unwrap_or_default();
        match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Some(Global::Dict),
            ("collections", "deque") => Some(Global::List),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Some(Global::RebuildTensor)
            }
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device" | "Generator" | "Tensor" | "strided") => Some(Global::Opaque),
            ("torch.nn.parameter", "Parameter") => Some(Global::Opaque),
            ("torch", name) => Dtype::of_storage(name)
                .map(Global::Storage)
                .or_else(|| is_number_format(name).then_some(Global::Opaque)),
            ("builtins" | "__builtin__", name) if BUILTINS.contains(&name) => Some(Global::Opaque),
            ("copyreg" | "copy_reg", "_reconstructor") => Some(Global::Opaque),
            ("_codecs", "encode") => Some(Global::Opaque),
            ("functools", "partial") => Some(Global::Opaque),
            _ if module == "torch.optim" || module.starts_with("torch.optim.") => {
                Some(Global::Opaque)
            }
            _ if OPAQUE.contains(&package) => Some(Global::Opaque),
            _ => None,
        }
    }
}

impl Global {
    /// What a name of a TorchScript program's pickle stands for. libtorch has made sense of the file before,
    /// and nothing is called here, so that what is unknown stands for nothing.
    pub(crate) fn of_script(module: &str, name: &str) -> Global {
        match Global::named(module, name) {
            Some(global) => global,
            None if module == "__torch__" || module.starts_with("__torch__.") => Global::Module,
            None if module == "torch.jit._pickle" => Global::Typed,
            None => Global::Opaque,
        }
    }
}

/// `torch.float32` and its like.
fn is_number_format(name: &str) -> bool {
    let stems = ["float", "bfloat", "int", "uint", "complex"];
    let digits = stems.iter().find_map(|stem| name.strip_prefix(stem));
    name == "bool" || digits.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_no_harmless_name() {
        let acting = [
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("__builtin__", "exec"),
            ("os", "system"),
            ("posix", "system"),
            ("subprocess", "Popen"),
            ("torch", "load"),
            ("torch.hub", "load"),
            ("torch.jit", "load"),
            ("torch.nn.modules.conv", "Conv2d"),
            ("collections", "namedtuple"),
            ("numpyx", "a"),
            ("shutil", "rmtree"),
            ("importlib", "import_module"),
            ("pickle", "loads"),
            ("runpy", "run_path"),
        ];
        for (module, name) in acting {
            assert_eq!(Global::named(module, name), None, "{module}.{name}");
        }
        let harmless = [
            ("argparse", "Namespace"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("pathlib", "PosixPath"),
            ("torch", "float32"),
            ("builtins", "set"),
            ("pytorch_lightning.utilities.parsing", "AttributeDict"),
        ];
        for (module, name) in harmless {
            assert_eq!(Global::named(module, name), Some(Global::Opaque), "{module}.{name}");
        }
        assert_eq!(Global::named("torch", "BFloat16Storage"), Some(Global::Storage(Dtype::Bf16)));
    }
}
