//! Compiles the C++ bridge against the libtorch that torch-sys links, and lets tests find it.

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    let lib = pfc_linking::libtorch().expect("torch-sys tells where the libtorch is that it links");
    let include = lib.join("../include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        // There is nothing to optimise here: it only hands calls over.
        .opt_level(0)
        .include("cpp")
        // As system headers, so that their warnings stay theirs.
        .flag(format!("-isystem{}", include.display()))
        .file("cpp/bridge.cpp")
        .compile("pfc_autograd_bridge");
}
