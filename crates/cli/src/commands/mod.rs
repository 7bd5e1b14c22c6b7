//! One module per command, each a call into the library and a result on stdout.

pub mod bench;
pub mod compare;
pub mod data;
pub mod embed;
pub mod eval;
pub mod info;
pub mod report;
pub mod selftest;
pub mod sweep;
pub mod train;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mendel::Settings;
use mendel::progress::Observer;

/// What a command works with, beside its own arguments.
pub struct Run<'a> {
    /// In force, and validated.
    pub settings: &'a Settings,
    /// Told what happens.
    pub observer: &'a mut dyn Observer,
    /// Becomes true when the user asks to stop: the work ends at the next point that can be resumed from.
    pub interrupted: Arc<AtomicBool>,
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is complete.
    Done,
    /// The user stopped it.
    Interrupted {
        /// Whether there is a checkpoint to resume from.
        saved: bool,
    },
}
