//! Launches of kernels: what they take, and which begin beside the one before.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use cudarc::driver::sys::{self, CUdeviceptr, CUstream};

use super::Context;
use crate::cuda::error::Calling;
use crate::cuda::programs::Program;

/// Threads and blocks of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

impl Grid {
    /// So many blocks in a row.
    pub fn line(blocks: usize, threads: usize) -> Self {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// As many blocks as give every item a thread.
    pub fn each(items: usize, threads: usize) -> Self {
        Grid::line(items.div_ceil(threads), threads)
    }
}

/// An argument of a kernel, or several that follow one another.
pub trait Argument {
    /// Puts the eight bytes from which each one's value is read after those of the arguments before.
    fn put(self, after: &mut Vec<u64>);
}

macro_rules! argument {
    ($($type:ty => $bits:expr),+ $(,)?) => {
        $(impl Argument for $type {
            fn put(self, after: &mut Vec<u64>) {
                let bits: fn($type) -> u64 = $bits;
                after.push(bits(self));
            }
        })+
    };
}
argument! {
    CUdeviceptr => |x| x,
    usize => |x| x as u64,
    u32 => u64::from,
    i32 => |x| u64::from(x as u32),
    f32 => |x| u64::from(x.to_bits()),
    bool => u64::from,
}

impl<A: Argument, const N: usize> Argument for [A; N] {
    fn put(self, after: &mut Vec<u64>) {
        self.into_iter().for_each(|argument| argument.put(after));
    }
}

impl<A: Argument, B: Argument> Argument for (A, B) {
    fn put(self, after: &mut Vec<u64>) {
        self.0.put(after);
        self.1.put(after);
    }
}

/// The bytes of a kernel's arguments, in its parameters' order: pointers and `usize` for `u64`, `i32` for `int`,
/// `u32` for `unsigned`, `f32` for `float`.
macro_rules! arguments {
    ($($argument:expr),+ $(,)?) => {
        &mut {
            let mut all = Vec::new();
            $($crate::cuda::context::Argument::put($argument, &mut all);)+
            all
        }
    };
}
pub(in crate::cuda) use arguments;

/// The compute capability from which kernels overlap.
const OVERLAPPING: (i32, i32) = (9, 0);

impl Context {
    /// Puts a kernel into the main stream.
    pub fn launch(&self, program: Program, kernel: &str, grid: Grid, arguments: &mut [u64]) {
        self.launch_in(self.stream(), program, kernel, grid, arguments);
    }

    /// Puts a kernel into the main stream that lets one begin beside it (`let_next_begin`) which is launched next and
    /// reads what is written to `gives`.
    pub fn launch_yielding(
        &self,
        program: Program,
        kernel: &str,
        grid: Grid,
        arguments: &mut [u64],
        gives: CUdeviceptr,
    ) {
        if self.put(self.stream(), false, program, kernel, grid, arguments) && self.info.capability >= OVERLAPPING {
            self.yields.store(gives, Ordering::Relaxed);
        }
    }

    /// Puts a kernel into the main stream that begins beside the one before if that lets it and writes `takes`, where this
    /// one waits (`wait_for_kernel_before`) before it reads that or ends. What else it reads was there before both.
    pub fn launch_overlapping(
        &self,
        program: Program,
        kernel: &str,
        grid: Grid,
        arguments: &mut [u64],
        takes: CUdeviceptr,
    ) {
        let overlaps = takes > 0 && self.yields.load(Ordering::Relaxed) == takes;
        self.put(self.stream(), overlaps, program, kernel, grid, arguments);
    }

    /// Puts a kernel into that stream.
    pub fn launch_in(&self, stream: CUstream, program: Program, kernel: &str, grid: Grid, arguments: &mut [u64]) {
        self.put(stream, false, program, kernel, grid, arguments);
    }

    /// Whether it was put there.
    fn put(
        &self,
        stream: CUstream,
        overlaps: bool,
        program: Program,
        kernel: &str,
        grid: Grid,
        arguments: &mut [u64],
    ) -> bool {
        if self.has_failed() || grid.blocks.contains(&0) {
            return false;
        }
        self.enter();
        let Some(function) = self.keep(self.programs.function(program, kernel, grid.shared)) else { return false };
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(|bits| std::ptr::from_mut(bits).cast()).collect();
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: grid.threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared as u32,
            hStream: stream,
            attrs: &mut attribute,
            numAttrs: u32::from(overlaps),
        };
        // SAFETY: the callers in this folder give each kernel what it takes, and arrays outlive the stream's work on
        // them because their memory is handed out again in the stream's order only.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&config, function, pointers.as_mut_ptr(), std::ptr::null_mut()).result() };
        self.keep(launched.calling(kernel)).is_some()
    }
}
