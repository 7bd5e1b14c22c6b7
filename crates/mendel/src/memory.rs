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

/// How often this process has had to wait for a page of memory that the system had yet to provide; 0 where the system
/// does not tell.
pub fn page_faults() -> u64 {
    // Field 10, counted after the name of the program, which may hold spaces (proc_pid_stat(5)).
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(7).and_then(|field| field.parse().ok()).unwrap_or(0)
}
