//! The memory of this process.

use std::fs;

/// The largest resident memory since the last [`reset_peak`], in bytes; 0 where the system does not tell.
pub fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Begins a new peak at what is resident now, so that each arm has its own. Where the system does not allow it, the
/// peak goes on.
pub fn reset_peak() {
    // "5" resets the peak (proc_pid_clear_refs(5)). Failing leaves a peak that is too high, never too low.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
