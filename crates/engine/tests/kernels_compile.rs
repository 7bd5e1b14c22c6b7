//! Every CUDA kernel compiles, for the oldest and for today's architecture, and keeps its numbers in registers. Needs
//! NVRTC, which needs no GPU: PyPI's `nvidia-cuda-nvrtc` brings it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mendel_engine::cuda::CudaError;
use mendel_engine::cuda::programs::{Program, compile};

/// Bytes that a kernel may spill to memory: a few registers that are read once cost nothing that can be measured, and
/// less than a smaller tile or fewer blocks at once.
fn most_spilled(program: Program) -> u32 {
    use Program::{Attention32, Attention64, AttentionGradient32, AttentionGradient64, LayerNorm, LayerNormGradient};
    match program {
        LayerNorm | LayerNormGradient | Attention32 | Attention64 => 0,
        AttentionGradient32 | AttentionGradient64 => 40,
        _ => 64,
    }
}

/// Bytes spilled by each kernel: what stands before ` bytes spill stores` in what the assembler says.
fn spilled(log: &str) -> Vec<(String, u32)> {
    let mut kernel = String::new();
    let mut found = Vec::new();
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            kernel = name.split('\'').next().unwrap_or_default().to_owned();
        }
        if let Some((before, _)) = line.split_once(" bytes spill stores")
            && let Some(bytes) = before.rsplit(' ').next().and_then(|bytes| bytes.parse().ok())
        {
            found.push((kernel.clone(), bytes));
        }
    }
    found
}

/// What is wrong with a program, if anything; `None` where there is no NVRTC.
fn faults(program: Program, capability: (i32, i32)) -> Option<Vec<String>> {
    let named = |what: String| format!("{program:?} for {capability:?}: {what}");
    let log = match compile(program, capability) {
        Ok(image) => image.log,
        Err(CudaError::Library { .. }) => return None,
        Err(error) => return Some(vec![error.to_string()]),
    };
    if std::env::var_os("MENDEL_SHOW_REGISTERS").is_some() {
        println!("{log}");
    }
    let (spilled, most) = (spilled(&log), most_spilled(program));
    let too_much = spilled.iter().filter(|(_, bytes)| *bytes > most);
    let mut faults: Vec<String> =
        too_much.map(|(kernel, bytes)| named(format!("{kernel} spills {bytes} bytes, more than {most}"))).collect();
    if spilled.is_empty() {
        faults.push(named(format!("no report of registers in {log:?}")));
    }
    if log.contains("warning") {
        faults.push(named(log));
    }
    Some(faults)
}

#[test]
fn every_kernel_compiles_for_ampere_and_hopper_and_spills_no_more_than_it_may() {
    let work: Vec<_> = Program::ALL.iter().flat_map(|&program| [(program, (8, 0)), (program, (9, 0))]).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(&(program, capability)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    found.lock().unwrap().push(faults(program, capability));
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    if found.contains(&None) {
        // CI names the folder, and must not pass over it.
        assert!(std::env::var_os("MENDEL_CUDA_LIBRARIES").is_none(), "MENDEL_CUDA_LIBRARIES holds no NVRTC");
        println!("skipped: there is no NVRTC; MENDEL_CUDA_LIBRARIES can name its folder (.ci/run fetches it)");
        return;
    }
    assert_eq!(found.len(), work.len());
    let faults: Vec<String> = found.into_iter().flatten().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
