//! The library's log, on stderr, without tearing progress bars.

use std::io::{self, Write};

use anyhow::anyhow;
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use crate::failure::WrongUsage;

/// What is logged, in the words of tracing-subscriber's `EnvFilter`; it covers `-v`.
const VARIABLE: &str = "MENDEL_LOG";

/// Logs warnings; with `-v` what is done, with `-vv` details; or what the environment asks for.
///
/// # Errors
/// [`WrongUsage`] for a filter in the environment that cannot be read.
pub fn start(verbose: u8, bars: MultiProgress) -> anyhow::Result<()> {
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) => EnvFilter::try_new(&filter)
            .map_err(|error| WrongUsage::new(format!("{VARIABLE}={filter} is no log filter: {error}")))?,
        Err(_) => EnvFilter::new(match verbose {
            0 => "warn",
            1 => "warn,mendel=info,mendel_engine=info",
            _ => "warn,mendel=debug,mendel_engine=debug",
        }),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || AroundBars(bars.clone()))
        .try_init()
        .map_err(|error| anyhow!("cannot start the log: {error}"))
}

/// Writes to stderr while the bars are out of the way.
struct AroundBars(MultiProgress);

impl Write for AroundBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
