//! The emulated GPU, and the program on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::{Place, stderr, stdout};

/// Builds its libraries into a folder, and with `--test` runs their own test; says so where that cannot be.
pub fn build(arguments: &[&str], name: &str) -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: the emulated GPU is for Linux on x86-64");
        return None;
    }
    if Command::new("g++").arg("--version").output().is_err() {
        println!("skipped: the emulated GPU needs g++");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated_gpu/build.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new(script).args(arguments).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    Some(folder)
}

/// The folder of its libraries, built once by each file of tests.
fn libraries() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| build(&[], "emulated_gpu")).as_deref()
}

/// An emulated GPU with a place for a test's files, which also holds the cache of kernels.
pub struct Gpu {
    pub place: Place,
    pub libraries: PathBuf,
}

impl Gpu {
    /// Nothing where there can be none.
    pub fn new() -> Option<Gpu> {
        Some(Gpu { place: Place::new(), libraries: libraries()?.to_owned() })
    }

    /// The program, which finds the emulated GPU's libraries.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut program = super::program();
        program.args(arguments).env("LD_LIBRARY_PATH", &self.libraries).env("XDG_CACHE_HOME", self.place.path("cache"));
        // A small GPU: what it can do at most is then measured with small products.
        program.env("EMULATED_GPU_MEMORY", format!("{}", 1_u64 << 30));
        program
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed; what it printed on stdout.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output).to_owned()
    }
}
