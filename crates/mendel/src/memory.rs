//! The memory that work takes: the GPU's, or else this process's.

use std::fs;

use mendel_engine::Device;

/// The most memory that the device's work took since the last [`reset_peak`], in bytes: of a GPU what arrays took, else
/// the process's largest resident memory, 0 where the system does not tell.
pub fn peak(device: &Device) -> u64 {
    device.peak_memory().map_or_else(of_process, |bytes| bytes as u64)
}

/// Whose memory [`peak`] is of.
pub fn peak_kind(device: &Device) -> &'static str {
    if device.peak_memory().is_some() { "gpu" } else { "process" }
}

fn of_process() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Begins a new peak at what is in use now, so that each arm has its own. Where the system does not allow it, the peak
/// goes on.
pub fn reset_peak(device: &Device) {
    device.reset_peak_memory();
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
