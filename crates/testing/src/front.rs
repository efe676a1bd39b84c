//! What a program that hands its work over to another one answers by itself.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Checks that `program`, alone in a folder and without libtorch, answers questions about its command line.
///
/// * `work`: arguments that it takes, the first of which is a command
///
/// # Panics
///
/// If it answers otherwise, or names a library of libtorch.
#[track_caller]
pub fn check_front(program: &Path, work: &[&str]) {
    let bytes = fs::read(program).expect("the program can be read");
    // Rust's linker looks at what is used on this processor alone; elsewhere the program waits for libtorch.
    if cfg!(target_arch = "x86_64") {
        assert!(!names(&bytes, b"\0libtorch_cpu.so\0") && !names(&bytes, b"\0libc10.so\0"));
    }
    let place = program.parent().expect("a program lies in a folder");
    let folder = tempfile::tempdir_in(place).expect("a folder can be made");
    let alone = folder.path().join(program.file_name().expect("a program has a name"));
    // No copy, which could not be started as long as another test's child holds it open.
    fs::hard_link(program, &alone).expect("the program can have another name");
    let run = |arguments: &[&str]| {
        Command::new(&alone).args(arguments).output().expect("the program can be started")
    };
    let command = work[0];
    let questions: [&[&str]; 6] = [
        &["--version"],
        &["-V"],
        &["--help"],
        &["help", command],
        &[command, "--help"],
        &["completions", "bash"],
    ];
    for question in questions {
        let Output { status, stdout, stderr } = run(question);
        assert!(status.success() && stderr.is_empty() && !stdout.is_empty(), "{question:?}");
    }
    for fault in [&["nonsense"][..], &[command, "--nonsense"]] {
        let (code, said) = failure(&run(fault));
        assert!(code == Some(2) && said.contains("nonsense"), "{fault:?}: {said}");
    }
    let (code, said) = failure(&run(work));
    let is_told = said.contains("cannot start") && said.contains("\nhint: ");
    assert!(code == Some(2) && is_told, "{work:?}: {said}");
}

fn names(program: &[u8], library: &[u8]) -> bool {
    program.windows(library.len()).any(|window| window == library)
}

fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
