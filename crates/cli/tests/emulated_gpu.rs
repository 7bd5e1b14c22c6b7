//! The emulated GPU, on which the CUDA back end is tested where there is no GPU, computes what a GPU would.

use std::path::Path;
use std::process::Command;

#[test]
fn the_emulated_gpu_passes_its_own_test() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: the emulated GPU is for Linux on x86-64");
        return;
    }
    if Command::new("g++").arg("--version").output().is_err() {
        println!("skipped: the emulated GPU needs g++");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated_gpu/build.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated_gpu_self_test");
    let output = Command::new(script).arg("--test").arg(folder).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
