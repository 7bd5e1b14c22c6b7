//! A GPU: its context, its streams, and what is asked of it. Work is asynchronous: a call returns when the work is in
//! the stream, and what fails is kept and told by [`Context::check`], as CUDA itself does.

mod launch;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUstream};

use super::arena::Arena;
use super::aside::Aside;
use super::error::{Calling, CudaError, CudaResult};
use super::libraries;
use super::products::Products;
use super::programs::Programs;
use super::staging::Staging;

pub(super) use launch::arguments;
pub use launch::{Argument, Grid};

/// What a GPU is.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// The name by which NVIDIA sells it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of memory.
    pub memory: usize,
    /// The driver's CUDA version, as 13000 for 13.0.
    pub driver: i32,
}

/// A GPU with its streams, its memory and its kernels.
#[derive(Debug)]
pub struct Context {
    /// Which of those that this process has opened: the driver may give two of them one address, the second when the first
    /// is gone.
    serial: u64,
    stream: CUstream,
    aside: Aside,
    info: GpuInfo,
    arena: Arena,
    staging: Staging,
    programs: Programs,
    products: Products,
    /// What the last thing in the main stream writes, if that is a kernel that lets the next begin beside it; 0 otherwise.
    yields: AtomicU64,
    /// The first failure that nobody has been told yet.
    failure: Mutex<Option<CudaError>>,
    /// Goes last: all else is in it.
    primary: Primary,
}

// SAFETY: the driver's handles may be used from any thread that has made the context current, which `enter` does.
unsafe impl Send for Context {}
// SAFETY: as above; the driver's calls are thread-safe, and what is changed here is behind locks.
unsafe impl Sync for Context {}

static OPENED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The serial number of the context that is current in this thread; 0 is none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Of the main stream; the driver takes the nearest that it has.
const HIGHEST_PRIORITY: i32 = -5;

impl Context {
    /// The GPU of that number, counted from 0.
    pub fn open(number: usize) -> CudaResult<Arc<Self>> {
        libraries::open_all()?;
        result::init().calling("cuInit")?;
        let count = result::device::get_count().calling("cuDeviceGetCount")? as usize;
        if number >= count {
            return Err(CudaError::NoDevice { wanted: number, count });
        }
        let device = result::device::get(number as i32).calling("cuDeviceGet")?;
        let info = describe(device)?;
        if info.capability < (8, 0) {
            let (major, minor) = info.capability;
            return Err(CudaError::Capability { name: info.name, major, minor });
        }
        let programs = Programs::compiling(&info);
        let primary = Primary::retain(device)?;
        // SAFETY: the context was just made.
        unsafe { result::ctx::set_current(primary.context) }.calling("cuCtxSetCurrent")?;
        let serial = 1 + OPENED.fetch_add(1, Ordering::Relaxed);
        CURRENT.set(serial);
        let stream = result::stream::create_with_priority(result::stream::StreamKind::NonBlocking, HIGHEST_PRIORITY)
            .calling("cuStreamCreateWithPriority")?;
        let aside = Aside::new()?;
        let (arena, staging) = (Arena::default(), Staging::default());
        let (products, failure, yields) = (Products::new()?, Mutex::default(), AtomicU64::default());
        Ok(Arc::new(Context {
            serial,
            stream,
            aside,
            info,
            arena,
            staging,
            programs,
            products,
            yields,
            failure,
            primary,
        }))
    }

    /// What the GPU is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// The GPU's memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(super) fn products(&self) -> &Products {
        &self.products
    }

    /// The main stream, for something to be put into it.
    pub(super) fn stream(&self) -> CUstream {
        self.no_overlap();
        self.stream
    }

    /// Lets the next kernel wait for the one before, whatever that allows: memory has been given up between them.
    pub(super) fn no_overlap(&self) {
        self.yields.store(0, Ordering::Relaxed);
    }

    pub(super) fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Makes the context current in this thread.
    pub fn enter(&self) {
        if CURRENT.get() != self.serial {
            // SAFETY: the context lives as long as `self`.
            match unsafe { result::ctx::set_current(self.primary.context) } {
                Ok(()) => CURRENT.set(self.serial),
                Err(error) => {
                    self.fail(CudaError::Call { call: "cuCtxSetCurrent".into(), reason: format!("{error:?}") })
                }
            }
        }
    }

    /// Keeps a failure, unless an earlier one is still untold.
    pub fn fail(&self, error: CudaError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn keep<T>(&self, result: CudaResult<T>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }

    /// Whether something has failed. Nothing is put into the stream of a device that has.
    pub fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits for all work, and tells what has failed since the last call. After a lack of memory the device goes on.
    pub fn check(&self) -> CudaResult<()> {
        self.enter();
        self.keep(self.aside.wait_for_all(self.stream()));
        // SAFETY: the stream lives as long as `self`.
        self.keep(unsafe { result::stream::synchronize(self.stream) }.calling("cuStreamSynchronize"));
        self.tell()
    }

    /// Tells what is known to have failed since the last call, and waits for nothing.
    pub fn tell(&self) -> CudaResult<()> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Copies from the host; the host's memory is free again when the call returns.
    pub fn upload(&self, bytes: &[u8], to: CUdeviceptr) {
        if self.has_failed() || bytes.is_empty() {
            return;
        }
        self.enter();
        self.keep(self.staging.upload(bytes, to, self.stream()));
    }

    /// Waits for all work before, and copies to the host. What a failed device has is not copied.
    pub fn download(&self, from: CUdeviceptr, bytes: &mut [u8]) {
        if self.has_failed() || bytes.is_empty() {
            return;
        }
        self.enter();
        // SAFETY: the caller's array holds as many bytes; the stream is waited for before the borrow ends.
        let copied = unsafe {
            result::memcpy_dtoh_async(bytes, from, self.stream())
                .and_then(|()| result::stream::synchronize(self.stream))
        };
        self.keep(copied.calling("cuMemcpyDtoHAsync"));
    }

    /// Copies `rows` rows of `width` bytes, which begin `strides` bytes apart, within the device.
    pub fn copy_rows(&self, from: CUdeviceptr, to: CUdeviceptr, strides: [usize; 2], width: usize, rows: usize) {
        if self.has_failed() || width * rows == 0 {
            return;
        }
        self.enter();
        if rows == 1 || strides == [width; 2] {
            // SAFETY: memory of both arrays covers what is named.
            let copied = unsafe { result::memcpy_dtod_async(to, from, width * rows, self.stream()) };
            self.keep(copied.calling("cuMemcpyDtoDAsync"));
            return;
        }
        let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: device,
            srcHost: std::ptr::null(),
            srcDevice: from,
            srcArray: std::ptr::null_mut(),
            srcPitch: strides[0].max(width),
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: device,
            dstHost: std::ptr::null_mut(),
            dstDevice: to,
            dstArray: std::ptr::null_mut(),
            dstPitch: strides[1].max(width),
            WidthInBytes: width,
            Height: rows,
        };
        // SAFETY: memory of both arrays covers what is named.
        let copied = unsafe { sys::cuMemcpy2DAsync_v2(&copy, self.stream()).result() };
        self.keep(copied.calling("cuMemcpy2DAsync"));
    }

    /// Sets `words` 32-bit words.
    pub fn fill(&self, to: CUdeviceptr, word: u32, words: usize) {
        if self.has_failed() || words == 0 {
            return;
        }
        self.enter();
        // SAFETY: the caller's array holds as many words.
        let filled = unsafe { sys::cuMemsetD32Async(to, word, words, self.stream()).result() };
        self.keep(filled.calling("cuMemsetD32Async"));
    }

    /// A mark in the stream behind all work so far, for [`Mark::seconds_since`].
    pub fn mark(self: &Arc<Self>) -> Option<Mark> {
        self.enter();
        self.keep(self.aside.wait_for_all(self.stream()));
        let event = self.keep(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).calling("cuEventCreate"))?;
        // SAFETY: both handles are alive.
        self.keep(unsafe { result::event::record(event, self.stream()) }.calling("cuEventRecord"))?;
        Some(Mark { context: self.clone(), event })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.enter();
        // What fails while a device is given up cannot be mended.
        // SAFETY: nothing uses the handles after this; blocks hold the context, so none is left.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            self.aside.release();
            self.arena.trim();
            self.staging.release();
            self.products.release();
            self.programs.release();
            let _ = result::stream::destroy(self.stream);
        }
    }
}

/// The driver's context of a device.
#[derive(Debug)]
struct Primary {
    device: CUdevice,
    context: CUcontext,
}

impl Primary {
    fn retain(device: CUdevice) -> CudaResult<Self> {
        // SAFETY: the device exists; the context is released in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.calling("cuDevicePrimaryCtxRetain")?;
        Ok(Primary { device, context })
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        CURRENT.set(0);
        // SAFETY: it was retained once, and nothing uses it after this. What fails cannot be mended.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A moment in a GPU's stream.
#[derive(Debug)]
pub struct Mark {
    context: Arc<Context>,
    event: sys::CUevent,
}

// SAFETY: an event may be used from any thread.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Mark {
    /// Seconds from an earlier mark to this one; waits until the stream has passed it.
    pub fn seconds_since(&self, earlier: &Mark) -> f64 {
        self.context.enter();
        // SAFETY: both events were recorded in the same stream.
        let milliseconds = unsafe {
            result::event::synchronize(self.event).and_then(|()| result::event::elapsed(earlier.event, self.event))
        };
        f64::from(self.context.keep(milliseconds.calling("cuEventElapsedTime")).unwrap_or(f32::NAN)) / 1e3
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.context.enter();
        // SAFETY: the event is not used after this.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}

fn describe(device: CUdevice) -> CudaResult<GpuInfo> {
    use CUdevice_attribute as Attribute;
    // SAFETY: plain questions about a device that exists.
    let attribute = |name| unsafe { result::device::get_attribute(device, name) }.calling("cuDeviceGetAttribute");
    let mut driver = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut driver) }.result().calling("cuDriverGetVersion")?;
    Ok(GpuInfo {
        name: result::device::get_name(device).calling("cuDeviceGetName")?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.calling("cuDeviceTotalMem")?,
        driver,
    })
}
