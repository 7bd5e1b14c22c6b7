//! Optimisers.

mod adamw;

pub use adamw::{AdamW, Moments, global_norm, norm};
