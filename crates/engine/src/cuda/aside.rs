//! A second stream, for what nobody needs soon: the gradients of weights run in it beside the chain of gradients of
//! activations, and updates of the later layers' weights beside the next forward pass through the first. Both fill the
//! multiprocessors that the ends of the main stream's kernels leave idle.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result::event;
use cudarc::driver::result::stream::{self, StreamKind};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUevent_wait_flags, CUstream};

use super::arena::Block;
use super::error::{Calling, CudaResult};
use super::slice::Slice;

/// Jobs under way at once: each holds memory.
const AT_ONCE: u64 = 3;
const WAIT: CUevent_wait_flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;

/// The second stream and what runs in it.
#[derive(Debug)]
pub struct Aside {
    stream: CUstream,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// Begun since the stream was made.
    begun: u64,
    /// Those that the main stream has not waited for.
    under_way: VecDeque<Job>,
    /// Events to be used again.
    events: Vec<CUevent>,
}

#[derive(Debug)]
struct Job {
    number: u64,
    done: CUevent,
    /// What it reads: whoever changes that meanwhile gets a copy.
    _reads: Vec<Arc<Slice>>,
    /// Memory that it writes, which nobody else may get before it is done.
    _writes: Vec<Arc<Block>>,
}

// SAFETY: streams and events may be used from any thread that has made their context current.
unsafe impl Send for Aside {}
// SAFETY: as above; the jobs are behind a lock.
unsafe impl Sync for Aside {}

impl Aside {
    /// A stream whose work gives way to the main stream's; the context must be current.
    pub fn new() -> CudaResult<Self> {
        let stream = stream::create(StreamKind::NonBlocking).calling("cuStreamCreate")?;
        Ok(Aside { stream, jobs: Mutex::default() })
    }

    /// Runs `work` in this stream, behind everything that is in the main stream now. It reads `reads` and writes
    /// `writes`, which from then on knows that it is written here. The work asks for no memory and no address: it has them.
    pub fn run(
        &self,
        main: CUstream,
        reads: Vec<Arc<Slice>>,
        writes: &[&Arc<Block>],
        work: impl FnOnce(CUstream) -> CudaResult<()>,
    ) -> CudaResult<()> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match jobs.events.pop() {
            Some(event) => event,
            None => event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).calling("cuEventCreate")?,
        };
        // SAFETY: all handles are alive.
        let begun = unsafe {
            let fork = event::record(done, main).and_then(|()| stream::wait_event(self.stream, done, WAIT));
            let worked = fork.calling("cuStreamWaitEvent").and_then(|()| work(self.stream));
            worked.and_then(|()| event::record(done, self.stream).calling("cuEventRecord"))
        };
        if begun.is_err() {
            jobs.events.push(done);
            return begun;
        }
        jobs.begun += 1;
        let number = jobs.begun;
        writes.iter().for_each(|block| block.written_aside(number));
        let writes = writes.iter().map(|&block| block.clone()).collect();
        jobs.under_way.push_back(Job { number, done, _reads: reads, _writes: writes });
        let oldest = number.saturating_sub(AT_ONCE);
        jobs.wait(main, oldest)
    }

    /// Lets the main stream wait for the jobs up to that number.
    pub fn wait(&self, main: CUstream, number: u64) -> CudaResult<()> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).wait(main, number)
    }

    /// Lets the main stream wait for all.
    pub fn wait_for_all(&self, main: CUstream) -> CudaResult<()> {
        self.wait(main, u64::MAX)
    }

    /// # Safety
    /// Nothing may be asked for afterwards.
    pub unsafe fn release(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        let under_way = jobs.under_way.iter().map(|job| job.done);
        for event in jobs.events.iter().copied().chain(under_way) {
            // SAFETY: by the contract.
            let _ = unsafe { event::destroy(event) };
        }
        // SAFETY: by the contract.
        let _ = unsafe { stream::destroy(self.stream) };
    }
}

impl Jobs {
    fn wait(&mut self, main: CUstream, number: u64) -> CudaResult<()> {
        let count = self.under_way.iter().take_while(|job| job.number <= number).count();
        let done: Vec<Job> = self.under_way.drain(..count).collect();
        self.events.extend(done.iter().map(|job| job.done));
        // The stream's order makes the last one stand for all.
        let Some(last) = done.last() else { return Ok(()) };
        // SAFETY: both handles are alive.
        unsafe { stream::wait_event(main, last.done, WAIT) }.calling("cuStreamWaitEvent")
    }
}
