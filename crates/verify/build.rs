//! Lets binaries and tests of this package find libtorch wherever they are installed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys reports the folder it linked against. The link in the checkout is resolved, so
    // that an installed binary outlives the checkout.
    if let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        let lib = std::path::PathBuf::from(lib);
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
