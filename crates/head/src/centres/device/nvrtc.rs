//! NVRTC, the compiler of kernels: found, asked, and its answers kept.
//!
//! It is loaded when a card is first used. The one that libtorch came with is preferred, by its full path:
//! that of a toolkit on the loader's path may be newer than the driver, or too old for the card. What it
//! compiles for a card is kept in the user's cache folder.

#![allow(unsafe_code)]

use std::{
    env,
    ffi::{CString, OsString, c_char, c_int, c_void},
    fs,
    path::{Path, PathBuf},
};

use libloading::Library;
use xxhash_rust::xxh3::xxh3_128;

/// Why there are no compiled kernels.
#[derive(Debug, thiserror::Error)]
pub(super) enum NvrtcError {
    #[error(
        "there is no NVRTC library: neither beside libtorch nor by the names {names}: {source}; install \
         nvidia-cuda-nvrtc, or let `scripts/setup --cuda` link a libtorch that has it"
    )]
    Missing { names: String, source: libloading::Error },
    #[error("{name} is no NVRTC of version 11.1 or later: {source}")]
    Incomplete { name: String, source: libloading::Error },
    #[error("NVRTC {version} refuses to {op} (code {code}): {log}")]
    Refused { version: Version, op: &'static str, code: c_int, log: String },
    #[error(
        "NVRTC {version} compiles for no card as old as capability {major}.{minor}; its oldest is {oldest}"
    )]
    TooOld { version: Version, major: i32, minor: i32, oldest: c_int },
}

/// Of NVRTC: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(c_int, c_int);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The library.
#[derive(Debug)]
pub(super) struct Nvrtc {
    library: Library,
    version: Version,
    /// The path or name that it was loaded by.
    name: String,
    /// Holds what the library itself opens, by a name that only the loader's path would resolve.
    _builtins: Option<Library>,
}

/// What a compiler made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// A cubin for one kind of cards, or PTX that ends in a zero byte, which the driver compiles.
    pub bytes: Vec<u8>,
    /// Such as `sm_90`, or `compute_90` for PTX.
    pub target: String,
}

type Program = *mut c_void;

/// The library of libtorch that every program loads.
const LIBTORCH: &str = "libtorch_cpu.so";

/// Names by which the system's loader is asked, after the files beside libtorch.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so", "libnvrtc.so.12"];

impl Nvrtc {
    /// Loads the library, for as long as the process lives: it is not made to be unloaded.
    ///
    /// # Errors
    ///
    /// [`NvrtcError::Missing`] and [`NvrtcError::Incomplete`].
    pub fn load() -> Result<&'static Nvrtc, NvrtcError> {
        let beside = folder_of(LIBTORCH).map(|folder| beside(&folder)).unwrap_or_default();
        let files = beside.into_iter().filter(|path| path.exists());
        let names = files.map(PathBuf::into_os_string).chain(NAMES.map(OsString::from));
        let mut missing = None;
        for name in names {
            // SAFETY: loads a library by its usual name, and runs what it runs when it is loaded.
            match unsafe { Library::new(&name) } {
                Ok(library) => {
                    let nvrtc = Nvrtc::of(library, name.to_string_lossy().into_owned())?;
                    return Ok(Box::leak(Box::new(nvrtc)));
                }
                Err(source) => missing = missing.or(Some(source)),
            }
        }
        let source = missing.expect("a name was tried");
        Err(NvrtcError::Missing { names: NAMES.join(", "), source })
    }

    fn of(library: Library, name: String) -> Result<Nvrtc, NvrtcError> {
        let (mut major, mut minor) = (0, 0);
        let incomplete = |source| NvrtcError::Incomplete { name: name.clone(), source };
        // SAFETY: the type is that of the header; the pointers are to live numbers.
        let code = unsafe {
            let version = library
                .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion\0");
            (version.map_err(&incomplete)?)(&raw mut major, &raw mut minor)
        };
        let version = Version(major, minor);
        if code != 0 {
            let log = "it does not tell its version".to_owned();
            return Err(NvrtcError::Refused { version, op: "begin", code, log });
        }
        // SAFETY: only asks whether there is such a function: releases before 11.1 make no cubins.
        let getter = unsafe { library.get::<*const c_void>(b"nvrtcGetCUBIN\0") };
        getter.map(drop).map_err(&incomplete)?;
        let builtins = open_builtins(version);
        Ok(Nvrtc { library, version, name, _builtins: builtins })
    }

    /// The kernels of `source` for cards of capability `(major, minor)`, from `cache` or compiled and then
    /// kept there.
    ///
    /// * `cache`: a folder, made if need be; `None` to keep nothing. One that cannot be written is no error.
    ///
    /// # Errors
    ///
    /// [`NvrtcError::Refused`] with the compiler's words, [`NvrtcError::TooOld`].
    pub fn kernels(
        &self,
        source: &str,
        (major, minor): (i32, i32),
        cache: Option<&Path>,
    ) -> Result<Image, NvrtcError> {
        let target = self.target((major, minor))?;
        let options = [format!("--gpu-architecture={target}"), "--std=c++17".to_owned()];
        let path = cache.map(|folder| folder.join(file_name(source, &options, self.version)));
        if let Some(bytes) = path.as_deref().and_then(kept) {
            return Ok(Image { bytes, target });
        }
        let bytes = self.compile(source, &options, target.starts_with("sm_"))?;
        if let Some(path) = path
            && let Err(error) = keep(&path, &bytes)
        {
            tracing::debug!("compiled kernels are not kept: {error}");
        }
        Ok(Image { bytes, target })
    }

    /// A cubin where the compiler knows the cards, PTX of the newest that it knows where they are newer.
    fn target(&self, (major, minor): (i32, i32)) -> Result<String, NvrtcError> {
        let wanted = major * 10 + minor;
        let known = self.known()?;
        if known.contains(&wanted) {
            return Ok(format!("sm_{wanted}"));
        }
        match known.iter().filter(|&&known| known <= wanted).max() {
            Some(newest) => Ok(format!("compute_{newest}")),
            None => {
                let oldest = known.iter().min().copied().unwrap_or_default();
                Err(NvrtcError::TooOld { version: self.version, major, minor, oldest })
            }
        }
    }

    /// The capabilities that it compiles for, such as 90.
    fn known(&self) -> Result<Vec<c_int>, NvrtcError> {
        let mut n = 0;
        self.call("nvrtcGetNumSupportedArchs", "name its cards", |f| {
            // SAFETY: the type is that of the header; the pointer is to a live number.
            unsafe { function::<unsafe extern "C" fn(*mut c_int) -> c_int>(f)(&raw mut n) }
        })?;
        let mut known = vec![0; usize::try_from(n).unwrap_or(0)];
        self.call("nvrtcGetSupportedArchs", "name its cards", |f| {
            // SAFETY: as above; there is room for as many as it has said.
            unsafe { function::<unsafe extern "C" fn(*mut c_int) -> c_int>(f)(known.as_mut_ptr()) }
        })?;
        Ok(known)
    }

    fn compile(
        &self,
        source: &str,
        options: &[String],
        to_cubin: bool,
    ) -> Result<Vec<u8>, NvrtcError> {
        let program = self.program(source)?;
        let compiled = self.compile_program(program, options);
        let what = if to_cubin { "CUBIN" } else { "PTX" };
        let image = compiled.and_then(|()| self.bytes(program, what));
        let mut program = program;
        let _ = self.call("nvrtcDestroyProgram", "free a program", |f| {
            // SAFETY: the type is that of the header; the program is live and used no more.
            unsafe { function::<unsafe extern "C" fn(*mut Program) -> c_int>(f)(&raw mut program) }
        });
        image
    }

    fn program(&self, source: &str) -> Result<Program, NvrtcError> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let source = c_string(source);
        let mut program: Program = std::ptr::null_mut();
        self.call("nvrtcCreateProgram", "begin", |f| {
            // SAFETY: the type is that of the header; the texts are live and end in a zero byte, and a
            // program without headers takes null for their lists. It copies the source.
            unsafe {
                function::<Create>(f)(
                    &raw mut program,
                    source.as_ptr(),
                    c"kernels.cu".as_ptr(),
                    0,
                    std::ptr::null(),
                    std::ptr::null(),
                )
            }
        })?;
        Ok(program)
    }

    fn compile_program(&self, program: Program, options: &[String]) -> Result<(), NvrtcError> {
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        let options: Vec<CString> = options.iter().map(|option| c_string(option)).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let n = pointers.len() as c_int;
        let compiled = self.call("nvrtcCompileProgram", "compile the kernels", |f| {
            // SAFETY: the type is that of the header; the program and as many texts as said are live.
            unsafe { function::<Compile>(f)(program, n, pointers.as_ptr()) }
        });
        compiled.map_err(|error| match error {
            NvrtcError::Refused { version, op, code, .. } => {
                let log = self.bytes(program, "ProgramLog").unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let log = log.trim_matches(['\0', '\n', ' ']).to_owned();
                NvrtcError::Refused { version, op, code, log }
            }
            other => other,
        })
    }

    /// `CUBIN`, `PTX` or `ProgramLog` of a program.
    fn bytes(&self, program: Program, what: &str) -> Result<Vec<u8>, NvrtcError> {
        let op = "give what it made";
        let mut size = 0usize;
        self.call(&format!("nvrtcGet{what}Size"), op, |f| {
            type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
            // SAFETY: the type is that of the header; program and number are live.
            unsafe { function::<Size>(f)(program, &raw mut size) }
        })?;
        let mut bytes = vec![0u8; size];
        self.call(&format!("nvrtcGet{what}"), op, |f| {
            type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
            // SAFETY: as above; there is room for as many bytes as it has said.
            unsafe { function::<Get>(f)(program, bytes.as_mut_ptr().cast()) }
        })?;
        Ok(bytes)
    }

    /// Hands the address of a function over, and makes an error of a code that is not 0.
    fn call(
        &self,
        name: &str,
        op: &'static str,
        run: impl FnOnce(*const c_void) -> c_int,
    ) -> Result<(), NvrtcError> {
        // SAFETY: the address is not used as anything but the function that the header has by this name.
        let address = unsafe { self.library.get::<*const c_void>(name.as_bytes()) };
        let address =
            address.map_err(|source| NvrtcError::Incomplete { name: self.name.clone(), source })?;
        match run(*address) {
            0 => Ok(()),
            code => {
                Err(NvrtcError::Refused { version: self.version, op, code, log: String::new() })
            }
        }
    }
}

/// A function of the library by its address.
///
/// # Safety
///
/// `F` is the function's own type, a pointer.
unsafe fn function<F: Copy>(address: *const c_void) -> F {
    const { assert!(size_of::<F>() == size_of::<*const c_void>()) };
    // SAFETY: both are pointers, and the caller knows the type.
    unsafe { std::mem::transmute_copy(&address) }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("neither the kernels nor their options hold a zero byte")
}

/// What NVRTC opens by its plain name when it compiles: without a search path of its own it does not find
/// the file beside itself, but a library that is open is found by its name.
fn open_builtins(Version(major, minor): Version) -> Option<Library> {
    let name = format!("libnvrtc-builtins.so.{major}.{minor}");
    let beside = folder_of("libnvrtc.so").map(|folder| folder.join(&name));
    // SAFETY: loads the library that NVRTC would, and runs what it runs when it is loaded.
    let open = |name: &Path| unsafe { Library::new(name) };
    beside.and_then(|path| open(&path).ok()).or_else(|| open(Path::new(&name)).ok())
}

/// Where a library was loaded from, as this process's map of memory tells.
///
/// * `name`: how its file's name begins
fn folder_of(name: &str) -> Option<PathBuf> {
    folder_in(&fs::read_to_string("/proc/self/maps").ok()?, name)
}

fn folder_in(maps: &str, name: &str) -> Option<PathBuf> {
    let path = maps.lines().find_map(|line| {
        let path = Path::new(&line[line.find('/')?..]);
        path.file_name()?.to_str()?.starts_with(name).then_some(path)
    })?;
    Some(path.parent()?.to_owned())
}

/// Where NVRTC is in a folder that `scripts/setup --cuda` has made, and in Python's packages.
fn beside(libtorch: &Path) -> Vec<PathBuf> {
    let folders = [libtorch.to_owned(), libtorch.join("../../nvidia/cu13/lib")];
    folders.map(|folder| folder.join(NAMES[0])).into()
}

/// The folder for compiled kernels: `pfc/kernels` in the user's cache.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
    Some(cache.join("pfc/kernels"))
}

/// The name of the file that holds what this compiler makes of this source: a hash of all that decides it.
fn file_name(source: &str, options: &[String], version: Version) -> String {
    let mut text = format!("{version}\0{}\0", options.join("\0")).into_bytes();
    text.extend_from_slice(source.as_bytes());
    format!("{:032x}", xxh3_128(&text))
}

/// Writes a checksum and what it is of.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), pfc_durable::DurableError> {
    if let Some(folder) = path.parent() {
        pfc_durable::create_dir_all(folder)?;
    }
    pfc_durable::write(path, &[&xxh3_128(bytes).to_le_bytes()[..], bytes].concat())
}

/// What [`keep`] wrote; nothing of a file that is absent, cannot be read or is damaged.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let checksum = u128::from_le_bytes(bytes.get(..16)?.try_into().ok()?);
    bytes.drain(..16);
    (checksum == xxh3_128(&bytes)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "extern \"C\" __global__ void nothing() {}";

    fn nvrtc() -> Option<&'static Nvrtc> {
        match Nvrtc::load() {
            Ok(nvrtc) => Some(nvrtc),
            Err(NvrtcError::Missing { .. }) => {
                pfc_testing::skip("there is no NVRTC library; `scripts/test-kernels` gets it");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn cards_get_machine_code_of_their_own_and_newer_ones_what_their_driver_compiles() {
        let Some(nvrtc) = nvrtc() else { return };
        for capability in [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)] {
            let image = nvrtc.kernels(SOURCE, capability, None).unwrap();
            assert_eq!(image.target, format!("sm_{}{}", capability.0, capability.1));
            assert_eq!(&image.bytes[..4], b"\x7fELF");
        }
        let image = nvrtc.kernels(SOURCE, (99, 0), None).unwrap();
        assert!(image.target.starts_with("compute_"), "{}", image.target);
        assert!(image.bytes.ends_with(&[0]), "PTX ends in a zero byte");
        let error = nvrtc.kernels(SOURCE, (3, 0), None).unwrap_err().to_string();
        assert!(error.contains("capability 3.0") && error.contains("its oldest is"), "{error}");
    }

    #[test]
    fn a_mistake_in_the_kernels_is_reported_with_the_compilers_words() {
        let Some(nvrtc) = nvrtc() else { return };
        let error = nvrtc.kernels("__global__ void f() { nothing }", (9, 0), None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("compile the kernels") && text.contains("\"nothing\""), "{text}");
    }

    #[test]
    fn compiled_kernels_are_kept_and_compiled_again_where_their_file_is_damaged() {
        let Some(nvrtc) = nvrtc() else { return };
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("pfc/kernels");
        let compiled = nvrtc.kernels(SOURCE, (9, 0), Some(&cache)).unwrap();
        let files = || fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path());
        let path = files().next().unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole[16..], compiled.bytes);
        // Kept: what is there is taken, whatever it is, if its checksum says so.
        keep(&path, b"other").unwrap();
        assert_eq!(nvrtc.kernels(SOURCE, (9, 0), Some(&cache)).unwrap().bytes, b"other");
        for damaged in
            [&whole[..whole.len() - 1], &[&whole[..99], b"x", &whole[100..]].concat(), b""]
        {
            fs::write(&path, damaged).unwrap();
            assert_eq!(nvrtc.kernels(SOURCE, (9, 0), Some(&cache)).unwrap(), compiled);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        // Other cards and another source are other files.
        nvrtc.kernels(SOURCE, (8, 0), Some(&cache)).unwrap();
        nvrtc.kernels(&format!("{SOURCE} "), (9, 0), Some(&cache)).unwrap();
        assert_eq!(files().count(), 3);
    }

    #[test]
    fn a_cache_that_cannot_be_written_stops_nothing() {
        let Some(nvrtc) = nvrtc() else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(nvrtc.kernels(SOURCE, (9, 0), Some(&file.path().join("below"))).is_ok());
    }

    #[test]
    fn libtorchs_folder_is_found_in_the_map_of_memory() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 00:00 0 [vdso]\n\
                    7f04-7f05 r--p 00000000 fe:00 13 /opt/a b/torch/lib/libtorch_cpu.so\n";
        let folder = folder_in(maps, LIBTORCH).unwrap();
        assert_eq!(folder, Path::new("/opt/a b/torch/lib"));
        assert_eq!(beside(&folder)[0], Path::new("/opt/a b/torch/lib/libnvrtc.so.13"));
        assert_eq!(folder_in(maps, "libnvrtc.so"), None);
        assert!(folder_of(LIBTORCH).unwrap().join(LIBTORCH).exists());
    }
}
