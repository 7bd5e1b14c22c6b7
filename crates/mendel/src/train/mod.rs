//! Training one arm: the step, the loop around it, and what survives a kill.

mod batch;
pub mod checkpoint;
mod error;
mod events;
pub mod history;
mod inputs;
mod record;
mod run;
pub mod schedule;
mod state;
mod trainer;

pub use batch::{MicroBatches, TrainingBatch, TrainingPairs};
pub use error::TrainError;
pub use history::HistoryError;
pub use inputs::{Inputs, ModelSource, data_request, model_folder, open_model};
pub use record::{Best, Resources, RunNumbers, RunRecord};
pub use run::{
    PlannedRun, Resume, Run, Start, TrainedArm, Training, arm_name, clear_checkpoints, plan, total_steps, train_arm,
};
pub use state::{Fingerprints, Identity, Progress, settings_that_differ};
pub use trainer::{StepReport, Trainer};
