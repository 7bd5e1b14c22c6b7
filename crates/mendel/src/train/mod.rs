//! Training one arm: the step, the loop around it, and what survives a kill.

mod batch;
pub mod checkpoint;
mod error;
pub mod history;
mod inputs;
mod run;
pub mod schedule;
mod state;
mod trainer;

pub use batch::{TrainingBatch, TrainingPairs};
pub use error::TrainError;
pub use inputs::{Inputs, ModelSource, data_request, model_folder, open_model};
pub use run::{Resume, Run, TrainedArm, Training, arm_name, starting_points, total_steps, train_arm};
pub use state::{Fingerprints, Progress};
pub use trainer::{StepReport, Trainer};
