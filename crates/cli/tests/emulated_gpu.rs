//! The emulated GPU, on which the CUDA back end is tested where there is no GPU, computes what a GPU would.

mod common;

#[test]
fn the_emulated_gpu_passes_its_own_test() {
    common::emulated_gpu::build(&["--test"], "emulated_gpu_self_test");
}
