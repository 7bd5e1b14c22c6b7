//! Kernels: compiled by NVRTC for the GPU at hand, and kept on disk for the next time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fs, thread};

use cudarc::driver::result::{self, module};
use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUmodule};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};
use sha2::{Digest, Sha256};

use super::context::GpuInfo;
use super::error::{Calling, CudaError, CudaResult};
use super::libraries;

/// Blocks may ask for this much dynamic shared memory without saying so first.
const SHARED_BY_DEFAULT: usize = 48 * 1024;

macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident: $file:literal $($define:literal)?),+ $(,)?) => {
        /// A source file of kernels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Program {
            $($(#[$doc])* $name),+
        }

        impl Program {
            /// Every program.
            pub const ALL: &[Program] = &[$(Program::$name),+];

            /// The file's name.
            pub fn file(self) -> &'static str {
                match self { $(Program::$name => $file),+ }
            }

            /// What is defined in it, for programs that are made of one file several times.
            fn define(self) -> Option<&'static str> {
                let defines: &[&str] = match self { $(Program::$name => &[$($define)?]),+ };
                defines.first().copied()
            }

            fn source(self) -> &'static str {
                match self { $(Program::$name => include_str!($file)),+ }
            }
        }
    };
}

// In the order in which a first step asks for them; those that few models need come last.
programs! {
    /// Sums of table rows.
    Embedding: "embedding.cu",
    /// Layer norm, alone and of a residual sum.
    LayerNorm: "layer_norm.cu",
    /// Its gradients.
    LayerNormGradient: "layer_norm_gradient.cu",
    /// Attention's gradients on tensor cores, heads of 64.
    AttentionGradient64: "attention_gradient.cu" "-DHEAD_DIM=64",
    /// The same, heads of 32.
    AttentionGradient32: "attention_gradient.cu" "-DHEAD_DIM=32",
    /// Attention on tensor cores, heads of 64.
    Attention64: "attention.cu" "-DHEAD_DIM=64",
    /// The same, heads of 32.
    Attention32: "attention.cu" "-DHEAD_DIM=32",
    /// Dropout alone.
    Dropout: "dropout.cu",
    /// What surrounds a product: GELU, casts of weights.
    Linear: "linear.cu",
    /// Element-wise functions and copies.
    Elementwise: "elementwise.cu",
    /// Pooling.
    Pool: "pool.cu",
    /// Rows of unit length.
    L2Normalize: "l2_normalize.cu",
    /// The contrastive loss.
    InfoNce: "info_nce.cu",
    /// Sums over rows.
    SumRows: "sum_rows.cu",
    /// Multi-tensor AdamW and norms.
    AdamW: "adamw.cu",
    /// The largest entries of rows.
    Largest: "largest.cu",
    /// Evolution of the default number of organisms, heads of 64.
    EvolveFew64: "evolve_few.cu" "-DHEAD_DIM=64",
    /// The same, heads of 32.
    EvolveFew32: "evolve_few.cu" "-DHEAD_DIM=32",
    /// Gene fitness.
    GeneFitness: "gene_fitness.cu",
    /// Evolution of populations.
    Evolve: "evolve.cu",
    /// Modulation by gene fitness.
    Modulate: "modulate.cu",
    /// RMS norm.
    RmsNorm: "rms_norm.cu",
    /// Attention for any head dimension and type.
    AttentionGeneral: "attention_general.cu",
    /// Softmax over rows.
    Softmax: "softmax.cu",
}

/// What programs include.
const HEADERS: [(&str, &str); 6] = [
    ("platform.cuh", include_str!("platform.cuh")),
    ("common.cuh", include_str!("common.cuh")),
    ("random.cuh", include_str!("random.cuh")),
    ("layer_norm.cuh", include_str!("layer_norm.cuh")),
    ("attention.cuh", include_str!("attention.cuh")),
    ("evolve.cuh", include_str!("evolve.cuh")),
];

/// A program compiled, or why it could not be.
type Compiled = CudaResult<Vec<u8>>;

/// The kernels of one GPU.
#[derive(Debug)]
pub struct Programs {
    images: Arc<Images>,
    compilers: Vec<thread::JoinHandle<()>>,
    loaded: Mutex<HashMap<Program, Loaded>>,
}

/// What the compiler made of each program, or is making: whoever asks for one first makes it, and the others wait.
#[derive(Debug)]
struct Images {
    info: GpuInfo,
    of: [OnceLock<Compiled>; Program::ALL.len()],
    /// Whether nobody asks any more.
    given_up: AtomicBool,
}

impl Images {
    fn of(&self, program: Program) -> &Compiled {
        self.of[program as usize].get_or_init(|| cached(program, &self.info))
    }
}

#[derive(Debug)]
struct Loaded {
    module: CUmodule,
    /// By name: the function and the dynamic shared memory that it may have.
    functions: HashMap<String, (CUfunction, usize)>,
}

// SAFETY: modules and functions may be used from any thread that has made their context current.
unsafe impl Send for Loaded {}

impl Programs {
    /// Begins to compile, or to read from disk, every program; each is waited for when a kernel of it is first asked for.
    /// Half of the processors are left to what the program does meanwhile.
    pub fn compiling(info: &GpuInfo) -> Self {
        let of = std::array::from_fn(|_| OnceLock::new());
        let images = Arc::new(Images { info: info.clone(), of, given_up: AtomicBool::new(false) });
        let next = Arc::new(AtomicUsize::new(0));
        let compiler = |_| {
            let (images, next) = (images.clone(), next.clone());
            thread::spawn(move || {
                while let Some(&program) = Program::ALL.get(next.fetch_add(1, Ordering::Relaxed))
                    && !images.given_up.load(Ordering::Relaxed)
                {
                    images.of(program);
                }
            })
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        let compilers = (0..threads.min(Program::ALL.len())).map(compiler).collect();
        Programs { images, compilers, loaded: Mutex::default() }
    }

    /// A kernel that may have so many bytes of dynamic shared memory.
    pub fn function(&self, program: Program, kernel: &str, shared: usize) -> CudaResult<CUfunction> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { module, functions } = match loaded.entry(program) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Loaded { module: self.load(program)?, functions: HashMap::new() }),
        };
        if let Some(&(function, allowed)) = functions.get(kernel)
            && shared <= allowed
        {
            return Ok(function);
        }
        let name = CString::new(kernel).calling(kernel)?;
        // SAFETY: the module is loaded.
        let function = unsafe { module::get_function(*module, name) }.calling(kernel)?;
        if shared > SHARED_BY_DEFAULT {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, attribute, shared as i32) }.calling(kernel)?;
        }
        functions.insert(kernel.to_owned(), (function, shared.max(SHARED_BY_DEFAULT)));
        Ok(function)
    }

    fn load(&self, program: Program) -> CudaResult<CUmodule> {
        let image = self.images.of(program).as_ref().map_err(CudaError::clone)?;
        // SAFETY: the image is what the compiler made, whole.
        unsafe { module::load_data(image.as_ptr().cast()) }.calling(program.file())
    }

    /// Gives the kernels back to the driver.
    ///
    /// # Safety
    /// No kernel may be running or asked for afterwards.
    pub unsafe fn release(&self) {
        for (_, loaded) in self.loaded.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            // SAFETY: by the contract nothing of it runs.
            let _ = unsafe { module::unload(loaded.module) };
        }
    }
}

impl Drop for Programs {
    /// Waits for what is being compiled: the compiler does not survive the end of the process under it.
    fn drop(&mut self) {
        self.images.given_up.store(true, Ordering::Relaxed);
        for compiler in self.compilers.drain(..) {
            let _ = compiler.join();
        }
    }
}

/// From disk, where an earlier process has compiled the same source for the same GPU with the same compiler and driver.
fn cached(program: Program, info: &GpuInfo) -> Compiled {
    let place = cache_file(program, info);
    if let Some(image) = place.as_ref().and_then(|place| fs::read(place).ok()).and_then(whole) {
        return Ok(image);
    }
    let image = compile(program, info.capability)?.image;
    if let Some(place) = place {
        // A cache that cannot be written costs the next start its time, and nothing else.
        let _ = store(&place, &image);
    }
    Ok(image)
}

/// The image without the checksum that stands before it, if the file is what was written.
fn whole(file: Vec<u8>) -> Option<Vec<u8>> {
    let (checksum, image) = file.split_at_checked(32)?;
    (checksum == Sha256::digest(image).as_slice()).then(|| image.to_vec())
}

fn store(place: &std::path::Path, image: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().ok_or(std::io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    let unfinished = place.with_extension(format!("{}.part", std::process::id()));
    fs::write(&unfinished, [Sha256::digest(image).as_slice(), image].concat())?;
    fs::rename(unfinished, place)
}

fn cache_file(program: Program, info: &GpuInfo) -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let mut hash = Sha256::new();
    for text in std::iter::once(program.source()).chain(HEADERS.iter().map(|header| header.1)) {
        hash.update(Sha256::digest(text));
    }
    hash.update(format!("{info:?} {:?} {:?}", compiler_version(), options(program, info.capability)));
    let key: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let stem = program.file().trim_end_matches(".cu");
    Some(folder.join("mendel").join("kernels").join(format!("{stem}-{key}.cubin")))
}

/// The compiler's version, such as (13, 0).
fn compiler_version() -> (i32, i32) {
    static VERSION: OnceLock<(i32, i32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: writes two numbers. Where it fails both stay 0, which is a version too.
        unsafe { nvrtc_sys::nvrtcVersion(&mut major, &mut minor) };
        (major, minor)
    })
}

fn options(program: Program, (major, minor): (i32, i32)) -> Vec<String> {
    let architecture = format!("--gpu-architecture=sm_{major}{minor}");
    let define = program.define().map(str::to_owned);
    [architecture, "--std=c++17".into(), "--ptxas-options=-v".into()].into_iter().chain(define).collect()
}

/// What the compiler made of a program.
#[derive(Clone, Debug)]
pub struct Image {
    /// Machine code.
    pub image: Vec<u8>,
    /// What the compiler says, with the registers and spills of each kernel.
    pub log: String,
}

/// Compiles a program for a compute capability. Needs NVRTC, and no GPU.
///
/// # Errors
/// Where there is no NVRTC, or the program does not compile.
pub fn compile(program: Program, capability: (i32, i32)) -> CudaResult<Image> {
    libraries::open_compiler()?;
    let text = |text: &str| CString::new(text).calling("nvrtcCreateProgram");
    let (source, name) = (text(program.source())?, text(program.file())?);
    let headers: Vec<CString> = HEADERS.iter().map(|header| text(header.1)).collect::<CudaResult<_>>()?;
    let includes: Vec<CString> = HEADERS.iter().map(|header| text(header.0)).collect::<CudaResult<_>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
    let (headers, includes) = (pointers(&headers), pointers(&includes));
    let mut handle = std::ptr::null_mut();
    // SAFETY: all texts outlive the program, which is destroyed before this function returns.
    unsafe {
        let count = HEADERS.len() as i32;
        let created = nvrtc_sys::nvrtcCreateProgram(
            &mut handle,
            source.as_ptr(),
            name.as_ptr(),
            count,
            headers.as_ptr(),
            includes.as_ptr(),
        );
        created.result().calling("nvrtcCreateProgram")?;
        let image = image_of(handle, program, capability);
        nvrtc::destroy_program(handle).calling("nvrtcDestroyProgram")?;
        image
    }
}

/// # Safety
/// The program must be alive.
unsafe fn image_of(handle: nvrtc_sys::nvrtcProgram, program: Program, capability: (i32, i32)) -> CudaResult<Image> {
    // SAFETY: by the contract.
    unsafe {
        let compiled = nvrtc::compile_program(handle, &options(program, capability));
        let log: Vec<u8> = nvrtc::get_program_log(handle).unwrap_or_default().into_iter().map(|c| c as u8).collect();
        let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n', ' ']).to_owned();
        if compiled.is_err() {
            let capability = format!("{}.{}", capability.0, capability.1);
            return Err(CudaError::Compile { program: program.file(), capability, log });
        }
        let mut size = 0;
        nvrtc_sys::nvrtcGetCUBINSize(handle, &mut size).result().calling("nvrtcGetCUBINSize")?;
        let mut image = vec![0_u8; size];
        nvrtc_sys::nvrtcGetCUBIN(handle, image.as_mut_ptr().cast()).result().calling("nvrtcGetCUBIN")?;
        Ok(Image { image, log })
    }
}
