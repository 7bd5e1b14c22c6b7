//! Products of half-width operands by AMX tiles: of numbers that are one bf16, and of numbers that are three.
//!
//! Four tiles of eight serve: one of rows, one of columns, two of sums. While another program has the core's other hardware
//! thread, a product takes the longer the more tiles are in use (docs/performance.md), as if the registers that tiles are renamed
//! to were halved then: with all eight in use hardly any would be left, and readings and products wait for each other.

use std::arch::asm;

use super::bf16::{SIDE, TILE_LEN};
use super::bf16x3::Parts;
use super::unit::Operands;

/// The layout of LDTILECFG's operand: palette 1, and each tile's rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

static FOUR_WHOLE_TILES: TileConfiguration = TileConfiguration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

pub fn configure_tiles() {
    // SAFETY: the unit is only chosen where the machine has AMX and the kernel allows it; no Rust code uses tiles.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FOUR_WHOLE_TILES, options(nostack, readonly)) }
}

/// Idle tiles would be saved at every change of context.
pub fn release_tiles() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Half of a block's rows: two tiles of sums, which `add` adds to.
///
/// # Safety
/// As [`Unit::multiply`](super::unit::Unit::multiply), of the half. `add` may use tiles alone.
#[inline(always)]
unsafe fn with_sums(half: *mut f32, stride: usize, accumulate: bool, add: impl FnOnce()) {
    let row = stride * size_of::<f32>();
    // SAFETY: as the caller promises: reads and writes are in the block. Tiles are no one else's.
    unsafe {
        if accumulate {
            asm!(
                "tileloadd tmm0, [{half} + {row}*1]",
                "tileloadd tmm1, [{half} + {row}*1 + 64]",
                half = in(reg) half, row = in(reg) row,
                options(nostack, readonly),
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem));
        }
        add();
        asm!(
            "tilestored [{half} + {row}*1], tmm0",
            "tilestored [{half} + {row}*1 + 64], tmm1",
            half = in(reg) half, row = in(reg) row,
            options(nostack),
        );
    }
}

/// Numbers in a line of the cache.
const LINE: usize = 32;
/// Lines that the cache is asked for in a step of half of the rows: few where the share is less than one more. Where it is
/// more than many, or not quite few, some of the next panel's lines are not asked for.
const FEW_LINES: usize = 1;
const MANY_LINES: usize = 3;

/// Of numbers that are one bf16.
///
/// # Safety
/// As [`Unit::multiply`](super::unit::Unit::multiply).
pub unsafe fn multiply(operands: Operands<u16>, block: *mut f32, stride: usize, accumulate: bool) {
    let Operands { steps, rows, left, next, share, .. } = operands;
    let few = share < (2 * FEW_LINES + 1) * steps * LINE;
    let lines = steps * if few { FEW_LINES } else { MANY_LINES };
    for half in 0..rows.div_ceil(SIDE) {
        let (left, next) = (left.wrapping_add(half * TILE_LEN), next.wrapping_add(half * lines * LINE));
        let operands = Operands { left, next, ..operands };
        // SAFETY: as the caller promises.
        unsafe {
            with_sums(block.add(half * SIDE * stride), stride, accumulate, || {
                if few {
                    add_steps::<FEW_LINES>(operands);
                } else {
                    add_steps::<MANY_LINES>(operands);
                }
            });
        }
    }
}

/// Reads a tile of columns, `at` bytes into a step, and multiplies by it into a tile of sums.
macro_rules! product {
    ($sums:literal, $at:literal) => {
        concat!("tileloadd tmm3, [{right} + {line}*1 + ", $at, "]\n", again!($sums))
    };
}

/// Multiplies the two tiles that were read last.
macro_rules! again {
    ($sums:literal) => {
        concat!("tdpbf16ps tmm", $sums, ", tmm2, tmm3")
    };
}

/// Reads a tile of rows, `at` bytes into a step, as what will not serve again soon: the right panel stays in the first-level
/// cache.
macro_rules! rows {
    ($at:literal) => {
        concat!("tileloaddt1 tmm2, [{left} + {line}*1 + ", $at, "]")
    };
}

/// Asks for a line of what is next.
macro_rules! ask {
    ($line:literal) => {
        concat!("prefetcht0 [{next} + 64*", $line, "]")
    };
}

/// Adds the products of all steps to the tiles of sums.
///
/// # Safety
/// As [`Unit::multiply`](super::unit::Unit::multiply).
#[inline]
unsafe fn add_steps<const LINES: usize>(Operands { steps, left, right, next, .. }: Operands<u16>) {
    if steps == 0 {
        return;
    }
    // SAFETY: as the caller promises: reads are in the panels. Tiles are no one else's.
    unsafe {
        asm!(
            "2:",
            rows!("0"),
            ask!("0"),
            product!("0", "0"),
            ".if {lines} > 1",
            ask!("1"),
            ask!("2"),
            ".endif",
            product!("1", "1024"),
            "add {left}, 2048",
            "add {right}, 2048",
            "add {next}, {lines} * 64",
            "dec {steps}",
            "jnz 2b",
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            next = inout(reg) next => _,
            steps = inout(reg) steps => _,
            line = in(reg) 64_usize,
            lines = const LINES,
            options(nostack, readonly),
        );
    }
}

/// Lines that the cache is asked for in a step of half of the rows, where numbers are three.
const LINES_OF_PARTS: usize = 8;

/// Of numbers that are three.
///
/// # Safety
/// As [`Unit::multiply`](super::unit::Unit::multiply).
pub unsafe fn multiply_parts(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
    let Operands { steps, rows, left, right, next, .. } = operands;
    for half in 0..rows.div_ceil(SIDE) {
        let left = left.cast::<u16>().wrapping_add(half * TILE_LEN);
        let next = next.cast::<u16>().wrapping_add(half * steps * LINES_OF_PARTS * LINE);
        // SAFETY: as the caller promises.
        unsafe {
            with_sums(block.add(half * SIDE * stride), stride, accumulate, || {
                add_steps_of_parts(steps, [left, right.cast(), next]);
            });
        }
    }
}

/// Adds the six products of parts that matter, of all steps, the largest last. Of two that follow each other one operand is the
/// same, and need not be read again.
///
/// # Safety
/// As [`Unit::multiply`](super::unit::Unit::multiply).
#[inline]
unsafe fn add_steps_of_parts(steps: usize, [left, right, next]: [*const u16; 3]) {
    if steps == 0 {
        return;
    }
    // SAFETY: as the caller promises: reads are in the panels. Tiles are no one else's.
    unsafe {
        asm!(
            "2:",
            rows!("2*2048"),
            ask!("0"),
            product!("0", "0"),
            ask!("1"),
            product!("1", "1024"),
            rows!("2048"),
            ask!("2"),
            again!("1"),
            product!("0", "0"),
            ask!("3"),
            product!("0", "2048"),
            product!("1", "2048 + 1024"),
            rows!("0"),
            ask!("4"),
            again!("1"),
            product!("0", "2048"),
            ask!("5"),
            product!("0", "2*2048"),
            product!("1", "2*2048 + 1024"),
            ask!("6"),
            product!("1", "1024"),
            ask!("7"),
            product!("0", "0"),
            "add {left}, 3*2048",
            "add {right}, 3*2048",
            "add {next}, {lines} * 64",
            "dec {steps}",
            "jnz 2b",
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            next = inout(reg) next => _,
            steps = inout(reg) steps => _,
            line = in(reg) 64_usize,
            lines = const LINES_OF_PARTS,
            options(nostack, readonly),
        );
    }
}
