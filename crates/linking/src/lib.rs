//! How packages link libtorch; for their build scripts.
//!
//! `torch-sys` links libtorch itself, but what it tells the linker beside that does not reach the programs
//! and tests of other packages.

#![allow(clippy::print_stdout)] // how a build script talks to cargo

use std::path::{Path, PathBuf};

/// Has the programs and tests of the package that is being built find libtorch wherever they are
/// installed, and load its CUDA part where it has one.
///
/// Returns the folder of its libraries, with links resolved, so that an installed program outlives the
/// checkout; none where the package does not depend on `torch-sys`, which names it.
pub fn libtorch() -> Option<PathBuf> {
    tell(&["rustc-link-arg"])
}

/// As [`libtorch`], for a package of two programs: `behind` computes, and `front`, which users start, loads no
/// part of libtorch. Unit tests of such a package do not load its CUDA part either.
///
/// What `front` does not use is left out by the linker, which has to be LLD for that; others may leave libtorch
/// in, and the program starts more slowly then.
pub fn libtorch_behind(front: &str, behind: &str) -> Option<PathBuf> {
    // Functions of libtorch's headers that both hold would stay, so that each may call the other's.
    println!("cargo:rustc-link-arg-bin={front}=-Wl,--exclude-libs=ALL");
    tell(&[&format!("rustc-link-arg-bin={behind}"), "rustc-link-arg-tests"])
}

/// * `loads_cuda`: how cargo is told what the linker of those is to be given that load CUDA
fn tell(loads_cuda: &[&str]) -> Option<PathBuf> {
    println!("cargo:rerun-if-changed=build.rs");
    let lib = PathBuf::from(std::env::var_os("DEP_TCH_LIBTORCH_LIB")?);
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    for argument in cuda(&lib) {
        for kind in loads_cuda {
            println!("cargo:{kind}={argument}");
        }
    }
    Some(lib)
}

/// What the linker is told so that a program loads the CUDA part of the libtorch in `lib`, if it has one.
///
/// Nothing of ours calls into `libtorch_cuda.so`: it is its being loaded that makes GPUs known to libtorch,
/// and a linker leaves out what nobody calls unless it is told otherwise.
fn cuda(lib: &Path) -> Vec<String> {
    if !lib.join("libtorch_cuda.so").exists() {
        return Vec::new();
    }
    vec![format!("-L{}", lib.display()), "-Wl,--no-as-needed,-ltorch_cuda,--as-needed".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn compile(arguments: &[&str]) {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        assert!(Command::new(compiler).args(arguments).status().unwrap().success());
    }

    /// Whether a program that is linked against the libtorch in `lib` loads its CUDA part.
    fn loads_cuda(folder: &Path, lib: &Path) -> bool {
        let [source, program] = ["main.cpp", "main"].map(|name| folder.join(name));
        fs::write(&source, "int main() { return 0; }").unwrap();
        let [source, path] = [&source, &program].map(|path| path.to_str().unwrap());
        let of_lib = cuda(lib);
        let mut all = vec![source, "-o", path, "-Wl,--as-needed"];
        all.extend(of_lib.iter().map(String::as_str));
        compile(&all);
        // The name is in the program for the loader alone.
        let needed = b"\0libtorch_cuda.so\0";
        fs::read(&program).unwrap().windows(needed.len()).any(|window| window == needed)
    }

    #[test]
    fn a_program_loads_the_cuda_part_of_libtorch_though_it_calls_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("lib");
        fs::create_dir(&lib).unwrap();
        assert!(!loads_cuda(folder.path(), &lib));
        let source = folder.path().join("stub.cpp");
        fs::write(&source, "int of_cuda() { return 1; }").unwrap();
        let library = lib.join("libtorch_cuda.so");
        let [source, library] = [&source, &library].map(|path| path.to_str().unwrap());
        compile(&[source, "-shared", "-fPIC", "-Wl,-soname,libtorch_cuda.so", "-o", library]);
        assert!(loads_cuda(folder.path(), &lib));
    }
}
