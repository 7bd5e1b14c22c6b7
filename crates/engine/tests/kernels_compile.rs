//! Every CUDA kernel compiles, for the oldest and for today's architecture, and keeps its numbers in registers. Needs
//! NVRTC, which needs no GPU: PyPI's `nvidia-cuda-nvrtc` brings it.

use mendel_engine::cuda::CudaError;
use mendel_engine::cuda::programs::{Program, compile};

/// Bytes that a kernel may spill to memory.
const MOST_SPILLED: u32 = 0;

/// Numbers before ` bytes spill stores` in what the assembler says.
fn spilled(log: &str) -> Vec<(String, u32)> {
    let mut kernel = String::new();
    let mut found = Vec::new();
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            kernel = name.split('\'').next().unwrap_or_default().to_owned();
        }
        let number = line.split(" bytes spill stores").next().and_then(|text| text.rsplit(' ').next()?.parse().ok());
        if line.contains("bytes spill stores")
            && let Some(bytes) = number
        {
            found.push((kernel.clone(), bytes));
        }
    }
    found
}

#[test]
fn every_kernel_compiles_for_ampere_and_hopper_without_spilling() {
    for capability in [(8, 0), (9, 0)] {
        for &program in Program::ALL {
            let image = match compile(program, capability) {
                Err(error @ CudaError::Library { .. }) => {
                    println!("skipped: {error}. Set MENDEL_CUDA_LIBRARIES to the folder of libnvrtc.");
                    return;
                }
                other => other.unwrap_or_else(|error| panic!("{error}")),
            };
            assert!(!image.log.contains("warning"), "{}: {}", program.file(), image.log);
            let spilled = spilled(&image.log);
            assert!(!spilled.is_empty(), "{}: no report of registers in {:?}", program.file(), image.log);
            for (kernel, bytes) in spilled {
                assert_eq!(bytes, MOST_SPILLED, "{}: {kernel} spills for {capability:?}", program.file());
            }
            if std::env::var_os("MENDEL_SHOW_REGISTERS").is_some() {
                println!("{}", image.log);
            }
        }
    }
}
