//! Matrix products by cuBLASLt. Which of its algorithms serves is asked once for each class of shapes, and remembered:
//! the same shapes are always computed the same way, and give the same bits.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Preference,
    cublasLtMatrixLayout_t, cudaDataType,
};
use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::context::Context;
use super::error::{Calling, CudaError, CudaResult};
use super::slice::Kind;

/// Memory that algorithms may use for partial sums; what NVIDIA recommends for Hopper.
static WORKSPACE: usize = 32 << 20;
/// The extent of a product along the tokens is rounded up to this share of its power of two for the choice of an
/// algorithm: batches of nearly equal size are one class.
const CLASSES_PER_OCTAVE: usize = 8;

/// A row-major matrix in device memory, possibly to be read transposed.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The first element.
    pub address: CUdeviceptr,
    /// Rows as they lie in memory.
    pub rows: usize,
    /// Columns as they lie in memory.
    pub columns: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    /// What the elements are.
    pub kind: Kind,
    /// Whether rows and columns are exchanged.
    pub transposed: bool,
}

impl Operand {
    /// Rows and columns of the matrix that is meant.
    fn extent(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }
}

/// What is done with a product beside storing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A row of the output's kind is added to every row.
    Bias(CUdeviceptr),
}

impl Epilogue {
    fn of_library(self) -> (cublasLtEpilogue_t, Option<CUdeviceptr>) {
        match self {
            Epilogue::None => (cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT, None),
            Epilogue::Bias(row) => (cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS, Some(row)),
        }
    }
}

fn of_library(kind: Kind) -> cudaDataType {
    match kind {
        Kind::F32 => cudaDataType::CUDA_R_32F,
        Kind::Bf16 => cudaDataType::CUDA_R_16BF,
        Kind::U32 => cudaDataType::CUDA_R_32U,
    }
}

/// By what an algorithm is remembered: extents by class, strides, kinds, alignments, transpositions, epilogue, whether
/// it adds.
type Class = ([usize; 3], [usize; 3], [Kind; 3], [u32; 3], [bool; 2], u32, bool);

/// cuBLASLt, its workspace, and the algorithms chosen so far; `None` where the library has none.
#[derive(Debug)]
pub struct Products {
    handle: cublasLtHandle_t,
    /// Of the main stream and of the one aside.
    workspaces: [CUdeviceptr; 2],
    chosen: Mutex<HashMap<Class, Option<cublasLtMatmulAlgo_t>>>,
}

// SAFETY: the handle may be used from any thread.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    /// Opens the library; the context must be current.
    pub fn new() -> CudaResult<Self> {
        let handle = result::create_handle().calling("cublasLtCreate")?;
        // SAFETY: a plain allocation, given back in `release`.
        let workspace = || unsafe { driver::malloc_sync(WORKSPACE) };
        let workspace = || workspace().map_err(|error| CudaError::of_allocation(error, WORKSPACE, 0));
        Ok(Products { handle, workspaces: [workspace()?, workspace()?], chosen: Mutex::default() })
    }

    /// # Safety
    /// No product may be running or asked for afterwards.
    pub unsafe fn release(&self) {
        // SAFETY: by the contract.
        unsafe {
            let _ = result::destroy_handle(self.handle);
            for workspace in self.workspaces {
                let _ = driver::free_sync(workspace);
            }
        }
    }
}

/// `out = left · right`, or `out += left · right` if `add`, in that stream. Fails only where the library has no algorithm.
pub fn multiply(
    context: &Context,
    stream: CUstream,
    left: Operand,
    right: Operand,
    out: Operand,
    add: bool,
    epilogue: Epilogue,
) -> CudaResult<()> {
    if context.has_failed() {
        return Ok(());
    }
    context.enter();
    let products = context.products();
    // The library is column-major: what it sees of a row-major matrix is its transpose, and outᵀ = rightᵀ · leftᵀ.
    let call = Call::new(right, left, out, epilogue)?;
    let algorithm = products.algorithm(&call, class([left, right, out], epilogue, add))?;
    let (alpha, beta) = (1.0_f32, if add { 1.0_f32 } else { 0.0 });
    let pointer = |address: CUdeviceptr| address as *const c_void;
    // SAFETY: the operands' memory covers their extents (the operations check shapes), and lives in the stream's order.
    let done = unsafe {
        result::matmul(
            products.handle,
            call.description,
            std::ptr::from_ref(&alpha).cast(),
            std::ptr::from_ref(&beta).cast(),
            pointer(right.address),
            call.layouts[0],
            pointer(left.address),
            call.layouts[1],
            pointer(out.address),
            call.layouts[2],
            out.address as *mut c_void,
            call.layouts[2],
            &algorithm,
            products.workspaces[usize::from(stream != context.stream())] as *mut c_void,
            WORKSPACE,
            stream.cast(),
        )
    };
    done.calling("cublasLtMatmul")
}

/// Shapes, strides and kinds of a product.
fn class([left, right, out]: [Operand; 3], epilogue: Epilogue, add: bool) -> Class {
    let ((m, k), (_, n)) = (left.extent(), right.extent());
    let round = |extent: usize| {
        let step = (extent.next_power_of_two() / CLASSES_PER_OCTAVE).max(1);
        if extent < 256 { extent } else { extent.div_ceil(step) * step }
    };
    let strides = [left.stride, right.stride, out.stride];
    let kinds = [left.kind, right.kind, out.kind];
    let alignments = [left, right, out].map(alignment);
    let transposed = [left.transposed, right.transposed];
    ([round(m), round(n), round(k)], strides, kinds, alignments, transposed, epilogue.of_library().0 as u32, add)
}

/// At what power of two an operand begins, in bytes, as far as the library's algorithms care.
fn alignment(operand: Operand) -> u32 {
    1 << operand.address.trailing_zeros().min(8)
}

impl Products {
    fn algorithm(&self, call: &Call, class: Class) -> CudaResult<cublasLtMatmulAlgo_t> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let algorithm = chosen.entry(class).or_insert_with(|| call.best_algorithm(self.handle));
        let none = || CudaError::Call {
            call: "cublasLtMatmulAlgoGetHeuristic".into(),
            reason: format!("no algorithm for extents, strides and kinds {class:?}"),
        };
        algorithm.ok_or_else(none)
    }
}

/// A product's description for the library.
struct Call {
    description: cublasLtMatmulDesc_t,
    layouts: [cublasLtMatrixLayout_t; 3],
    alignments: [u32; 3],
}

impl Call {
    /// `a`, `b` and `out` as the library is to see them: our right and left operand.
    fn new(a: Operand, b: Operand, out: Operand, epilogue: Epilogue) -> CudaResult<Self> {
        let (compute, scale) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F);
        let description = result::create_matmul_desc(compute, scale).calling("cublasLtMatmulDescCreate")?;
        let alignments = [a, b, out].map(alignment);
        let mut call = Call { description, layouts: [std::ptr::null_mut(); 3], alignments };
        for (layout, operand) in call.layouts.iter_mut().zip([a, b, out]) {
            let (rows, columns, stride) = (operand.columns as u64, operand.rows as u64, operand.stride as i64);
            *layout = result::create_matrix_layout(of_library(operand.kind), rows, columns, stride)
                .calling("cublasLtMatrixLayoutCreate")?;
        }
        call.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(a.transposed))?;
        call.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(b.transposed))?;
        let (epilogue, row) = epilogue.of_library();
        call.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        if let Some(row) = row {
            call.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, row)?;
        }
        Ok(call)
    }

    fn set<T>(&self, attribute: Attribute, value: T) -> CudaResult<()> {
        let value = std::ptr::from_ref(&value).cast();
        // SAFETY: the description is alive, and the value as large as is said.
        unsafe { result::set_matmul_desc_attribute(self.description, attribute, value, size_of::<T>()) }
            .calling("cublasLtMatmulDescSetAttribute")
    }

    fn best_algorithm(&self, handle: cublasLtHandle_t) -> Option<cublasLtMatmulAlgo_t> {
        let preference = result::create_matmul_pref().ok()?;
        let [a, b, out] = self.layouts;
        // SAFETY: all descriptions are alive; the preference is destroyed here.
        let best = unsafe {
            let best = self
                .prefer(preference)
                .and_then(|()| result::get_matmul_algo_heuristic(handle, self.description, a, b, out, out, preference));
            let _ = result::destroy_matmul_pref(preference);
            best
        };
        best.ok().map(|best| best.algo)
    }

    /// How much workspace there is, and how the operands are aligned: the library takes 256 bytes for granted.
    ///
    /// # Safety
    /// The preference must be alive.
    unsafe fn prefer(&self, preference: sys::cublasLtMatmulPreference_t) -> Result<(), result::CublasError> {
        let [a, b, out] = &self.alignments;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: by the contract; the value is as large as is said.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
        };
        set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const WORKSPACE).cast(), size_of::<usize>())?;
        for (attribute, alignment) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set(attribute, std::ptr::from_ref(alignment).cast(), size_of::<u32>())?;
        }
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and not used after this.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = sys::cublasLtMatmulDescDestroy(self.description);
        }
    }
}
