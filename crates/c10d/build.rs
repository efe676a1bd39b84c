//! Compiles the C++ bridge against the libtorch that torch-sys links, and lets tests find it.

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    let lib = pfc_linking::libtorch().expect("torch-sys tells where the libtorch is that it links");
    let include = lib.join("../include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        // There is nothing to optimise here: the work is libtorch's.
        .opt_level(0)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include("cpp")
        // As system headers, so that their warnings stay theirs.
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .file("cpp/bridge.cpp");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        build.define("USE_C10D_NCCL", None);
    }
    build.compile("pfc_c10d_bridge");
}
