//! What `sweep` takes.

use std::path::PathBuf;

use clap::Args;
use mendel::Settings;
use mendel::compare::sweep::{self, Point, Space, SweepError};
use mendel::train::Resume;

use crate::failure::WrongUsage;
use crate::settings_layers::{check_point, sweep_file};

/// What `sweep` takes.
#[derive(Args, Debug)]
pub struct SweepArguments {
    /// Settings as for --config elsewhere, a preset, and what is swept: [grid] and [random]
    #[arg(long, value_name = "FILE.toml")]
    config: PathBuf,
    /// Where the artefacts go, a folder for each point
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// CPU threads; 0 is all
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Go on where an earlier sweep in the same folder ended
    #[arg(long)]
    resume: bool,
    /// Remove what sweeps of other settings have left in the same folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a sweep does.
pub struct SweepPlan {
    /// Of the sweep as a whole.
    pub whole: Settings,
    /// The points.
    pub points: Vec<Point>,
    /// Their settings.
    pub settings: Vec<Settings>,
}

impl SweepArguments {
    /// Where each point begins.
    pub fn resume(&self) -> Resume {
        match (self.resume, self.overwrite) {
            (true, _) => Resume::Newest,
            (_, true) => Resume::Overwrite,
            _ => Resume::No,
        }
    }

    /// Every point with its settings.
    pub fn plan(&self) -> anyhow::Result<SweepPlan> {
        let (mut base, space) = sweep_file(&self.config)?;
        if let Some(folder) = &self.output_dir {
            base.insert("output-dir".into(), folder.to_string_lossy().into_owned().into());
        }
        if let Some(threads) = self.threads {
            base.insert("threads".into(), i64::try_from(threads)?.into());
        }
        let usage = |error: SweepError| WrongUsage::new(error.to_string());
        let space: Space = space.try_into().map_err(|error: toml::de::Error| {
            WrongUsage::new(format!("{}: {}", self.config.display(), error.message()))
        })?;
        let points = space.points().map_err(usage)?;
        points.iter().try_for_each(|point| check_point(&self.config, point))?;
        let whole: Settings = base.clone().try_into()?;
        let settings = sweep::settings_of(&base, &points, &whole.output_dir).map_err(usage)?;
        Ok(SweepPlan { whole, points, settings })
    }
}
