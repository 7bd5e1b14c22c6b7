//! A sweep: the same job with many values of some settings, a grid of them or drawn at random, a row per point.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

use super::statistics::{Interval, bootstrap_interval};
use super::{Artefacts, Outcome, PRIMARY, compare};
use crate::files::write_atomically;
use crate::progress::{Event, Observer};
use crate::random::SplitMix64;
use crate::report::figure::{Content, Figure, Row};
use crate::report::table::{Table as Text, measure};
use crate::settings::{InvalidSetting, Settings};
use crate::train::{ModelSource, Resume, Run, RunRecord, TrainError, open_model};

/// Settings of the sweep as a whole.
const SHARED: [&str; 4] = ["cache-dir", "output-dir", "preset", "threads"];

/// Which values are tried.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Space {
    /// Every combination of the values of these settings.
    pub grid: Table,
    /// Settings that are drawn, for each point of the grid.
    pub random: Random,
}

/// Settings that are drawn.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Random {
    /// Draws for each point of the grid.
    pub points: u64,
    /// Decides what is drawn.
    pub seed: u64,
    /// By setting, what is drawn from.
    #[serde(flatten, deserialize_with = "draws")]
    pub of: BTreeMap<String, Draw>,
}

/// What a value is drawn from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Draw {
    /// Any of these.
    OneOf(Vec<Value>),
    /// A number between these, as likely by its value, or by its logarithm.
    Between {
        /// The least.
        low: f64,
        /// The largest.
        high: f64,
        /// Whether by its logarithm.
        #[serde(default)]
        log: bool,
    },
}

/// What is drawn by setting, where an error names the setting and says what is possible.
fn draws<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Draw>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let draw = |(name, value): (String, Value)| match value.try_into() {
        Ok(draw) => Ok((name, draw)),
        Err(_) => Err(D::Error::custom(SweepError::NothingToDraw(name))),
    };
    values.into_iter().map(draw).collect()
}

/// A point: the values of its settings, by name.
pub type Point = Table;

/// A space that holds no points.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A setting of the grid without a list of values.
    #[error("the sweep's grid needs a list of values for {0}, such as {0} = [1, 2]")]
    NotAList(String),
    /// A setting that all points share, or that is swept twice.
    #[error("the sweep cannot vary {0}: it is shared by all points, or stands in both [grid] and [random]")]
    NotSwept(String),
    /// `points` without settings to draw, or settings without `points`.
    #[error("the sweep's [random] needs both points = N and settings to draw")]
    HalfRandom,
    /// A setting with nothing to draw from.
    #[error(
        "the sweep cannot draw {0}: give it a list of values, or bounds such as {{ low = 0.1, high = 0.5 }} \
         with low below high, both above 0 with log = true"
    )]
    NothingToDraw(String),
    /// Nothing is swept.
    #[error("the sweep has no points: give it a [grid] of settings with lists of values, or [random] with points")]
    Nothing,
    /// A point whose settings do not fit together.
    #[error("point {point} of the sweep: {reason}")]
    Unfit {
        /// Its number, from 1.
        point: usize,
        /// Why.
        reason: String,
    },
    /// A point whose settings are not possible.
    #[error("point {0} of the sweep: {1}")]
    Invalid(usize, InvalidSetting),
}

/// What a point came to.
#[derive(Clone, Debug, Serialize)]
pub struct PointResult {
    /// Its number, from 1.
    pub point: usize,
    /// The values of its settings.
    pub values: Point,
    /// The arm.
    pub arm: String,
    /// The mean of `mrr@10` over queries and seeds.
    #[serde(rename = "mrr@10")]
    pub mrr_at_10: f64,
    /// Its bootstrap interval over queries.
    pub ci95: Interval,
    /// Mean training loss of the end.
    pub final_loss: f64,
    /// Training time in seconds.
    pub total_time: f64,
    /// Its artefacts.
    pub folder: String,
}

/// How a sweep ended.
#[derive(Debug)]
pub enum SweepOutcome {
    /// Every point is done.
    Done(Vec<PointResult>),
    /// The user stopped it.
    Interrupted,
}

impl Space {
    /// Every point, in the order of the file: the last setting of the grid changes first.
    ///
    /// # Errors
    /// Where the grid has a setting without a list, or there is nothing to try.
    pub fn points(&self) -> Result<Vec<Point>, SweepError> {
        let mut points = vec![Point::new()];
        for (name, values) in &self.grid {
            let values = values.as_array().ok_or_else(|| SweepError::NotAList(name.clone()))?;
            let with = |point: &Point, value: &Value| {
                let mut point = point.clone();
                point.insert(name.clone(), value.clone());
                point
            };
            points = points.iter().flat_map(|point| values.iter().map(|value| with(point, value))).collect();
        }
        let not_swept = |name: &&String| SHARED.contains(&name.as_str()) || self.random.of.contains_key(*name);
        let of_random = self.random.of.keys().find(|name| SHARED.contains(&name.as_str()));
        if let Some(name) = self.grid.keys().find(not_swept).or(of_random) {
            return Err(SweepError::NotSwept(name.clone()));
        }
        if self.random.of.is_empty() != (self.random.points == 0) {
            return Err(SweepError::HalfRandom);
        }
        if let Some((name, _)) = self.random.of.iter().find(|(_, from)| !from.is_possible()) {
            return Err(SweepError::NothingToDraw(name.clone()));
        }
        if self.random.points > 0 {
            let of_grid = std::mem::take(&mut points);
            points =
                of_grid.iter().flat_map(|point| (0..self.random.points).map(|draw| self.drawn(point, draw))).collect();
        }
        let swept = !self.grid.is_empty() || self.random.points > 0;
        if swept && !points.is_empty() { Ok(points) } else { Err(SweepError::Nothing) }
    }

    fn drawn(&self, of_grid: &Point, draw: u64) -> Point {
        let mut random = SplitMix64::keyed(&[self.random.seed, draw]);
        let mut point = of_grid.clone();
        for (name, from) in &self.random.of {
            point.insert(name.clone(), from.draw(&mut random));
        }
        point
    }
}

impl Draw {
    fn is_possible(&self) -> bool {
        match self {
            Draw::OneOf(values) => !values.is_empty(),
            Draw::Between { low, high, log } => low < high && (high - low).is_finite() && (!log || *low > 0.0),
        }
    }

    fn draw(&self, random: &mut SplitMix64) -> Value {
        let unit = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        match self {
            Draw::OneOf(values) => values[random.below(values.len())].clone(),
            Draw::Between { low, high, log: false } => short(low + unit * (high - low), *low, *high),
            Draw::Between { low, high, log: true } => {
                short((low.ln() + unit * (high.ln() - low.ln())).exp(), *low, *high)
            }
        }
    }
}

/// Four digits, which are read more easily, within the bounds.
fn short(value: f64, low: f64, high: f64) -> Value {
    Value::Float(format!("{value:.3e}").parse().unwrap_or(value).clamp(low, high))
}

/// The settings of every point: `base` with its values, in a folder of its own.
///
/// # Errors
/// Where a point's settings are not possible.
pub fn settings_of(base: &Table, points: &[Point], folder: &Path) -> Result<Vec<Settings>, SweepError> {
    let of_point = |(place, point): (usize, &Point)| {
        let number = place + 1;
        let mut table = base.clone();
        table.extend(point.clone());
        let settings = table.try_into::<Settings>();
        let settings =
            settings.map_err(|error| SweepError::Unfit { point: number, reason: error.message().to_owned() })?;
        settings.validate().map_err(|invalid| SweepError::Invalid(number, invalid))?;
        Ok(Settings { output_dir: folder.join(format!("point-{number:03}")), ..settings })
    };
    points.iter().enumerate().map(of_point).collect()
}

/// Runs every point; those that `resume` finds finished are taken as they are. Writes `sweep.json`, `sweep.md`, and
/// the figure `sweep.svg` and `.png`.
///
/// # Errors
/// As [`compare`].
pub fn sweep(
    run: &mut Run<'_>,
    points: &[Point],
    settings: &[Settings],
    resume: &Resume,
) -> Result<SweepOutcome, TrainError> {
    check(points, settings, run.observer)?;
    if *resume == Resume::No {
        settings.iter().try_for_each(|settings| Artefacts::new(settings).ensure_own(settings))?;
    }
    let folder = &run.settings.output_dir;
    let mut results = Vec::new();
    for (number, (point, settings)) in (1..).zip(points.iter().zip(settings)) {
        run.observer.observe(Event::Note(format!("point {number} of {}: {}", points.len(), label(point))));
        let begun = settings.output_dir.join("config.toml").exists();
        let from = if *resume == Resume::Newest && !begun { &Resume::No } else { resume };
        let mut of_point = Run { settings, observer: run.observer, interrupted: run.interrupted };
        match compare(&mut of_point, from).map_err(in_point(number, point))? {
            Outcome::Interrupted(_) => return Ok(SweepOutcome::Interrupted),
            Outcome::Done(_) => results.extend(results_of(number, point, settings)?),
        }
    }
    write(folder, &results)?;
    let [table, figure] = ["sweep.md", "sweep.svg"].map(|name| folder.join(name));
    run.observer.observe(Event::Note(format!("table: {}, figure: {}", table.display(), figure.display())));
    Ok(SweepOutcome::Done(results))
}

/// Refuses a point whose attention its model cannot have, before the first is trained.
fn check(points: &[Point], settings: &[Settings], observer: &mut dyn Observer) -> Result<(), TrainError> {
    let mut opened: Option<(&str, ModelSource)> = None;
    for (number, (point, settings)) in (1..).zip(points.iter().zip(settings)) {
        let source = match opened.take().filter(|(model, _)| *model == settings.model) {
            Some((_, source)) => source,
            None => open_model(&settings.model, observer).map_err(in_point(number, point))?.0,
        };
        source.check(settings).map_err(in_point(number, point))?;
        opened = Some((&settings.model, source));
    }
    Ok(())
}

/// An error with the point at which it came.
fn in_point(number: usize, point: &Point) -> impl FnOnce(TrainError) -> TrainError {
    move |error| TrainError::Point { point: number, values: label(point), source: Box::new(error) }
}

/// A point's arms, from the records of its runs.
fn results_of(number: usize, point: &Point, settings: &Settings) -> Result<Vec<PointResult>, TrainError> {
    let mut results = Vec::new();
    for arm in &settings.arms {
        let mut runs = Vec::new();
        for seed in settings.of_each_seed() {
            runs.extend(RunRecord::find(&seed, arm)?);
        }
        let count = runs.len() as f64;
        let mean = |number: fn(&RunRecord) -> f64| runs.iter().map(number).sum::<f64>() / count;
        let of_query = |query: usize| runs.iter().map(|run| run.per_query[PRIMARY][query]).sum::<f64>() / count;
        let per_query: Vec<f64> = (0..runs[0].query_ids.len()).map(of_query).collect();
        results.push(PointResult {
            point: number,
            values: point.clone(),
            arm: arm.name.clone(),
            mrr_at_10: mean(|run| run.numbers.eval.retrieval.mrr_at_10),
            ci95: bootstrap_interval(&per_query),
            final_loss: mean(|run| run.numbers.final_loss),
            total_time: mean(|run| run.numbers.resources.total_time),
            folder: settings.output_dir.display().to_string(),
        });
    }
    Ok(results)
}

fn write(folder: &Path, results: &[PointResult]) -> Result<(), TrainError> {
    let mut json = serde_json::to_vec_pretty(results).expect("results are plain data");
    json.push(b'\n');
    write_atomically(&folder.join("sweep.json"), &json)?;
    write_atomically(&folder.join("sweep.md"), table(results).markdown().as_bytes())?;
    let row = |result: &PointResult| Row {
        label: format!("{}, {}", result.point, result.arm),
        colour: 0,
        value: result.mrr_at_10,
        interval: (result.ci95.low, result.ci95.high),
    };
    let figure = Figure {
        name: "sweep".into(),
        title: "MRR@10 of each point, with 95% intervals over queries".into(),
        x: "MRR@10".into(),
        y: String::new(),
        content: Content::Intervals { rows: results.iter().map(row).collect(), around_zero: false },
    };
    write_atomically(&folder.join("sweep.svg"), figure.svg().map_err(crate::report::ReportError::from)?.as_bytes())?;
    Ok(write_atomically(&folder.join("sweep.png"), &figure.png().map_err(crate::report::ReportError::from)?)?)
}

/// A row per point and arm.
pub fn table(results: &[PointResult]) -> Text {
    let names = results.iter().flat_map(|result| result.values.keys().cloned()).collect::<BTreeSet<_>>();
    let columns = ["point", "arm"].map(str::to_owned).into_iter().chain(names.iter().cloned());
    let mut table = Text::new(columns.chain(["MRR@10", "95% interval", "loss"].map(str::to_owned)));
    for result in results {
        let values = names.iter().map(|name| result.values.get(name).map_or(String::new(), Value::to_string));
        let interval = format!("{} to {}", measure(result.ci95.low), measure(result.ci95.high));
        let measured = [measure(result.mrr_at_10), interval, measure(result.final_loss)];
        table.row([result.point.to_string(), result.arm.clone()].into_iter().chain(values).chain(measured));
    }
    table
}

/// `population-size=8 mutation-rate=0.1`
fn label(point: &Point) -> String {
    point.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<Point> {
        toml::from_str::<Space>(text).unwrap().points().unwrap()
    }

    #[test]
    fn a_grid_is_every_combination() {
        let points = points("[grid]\npopulation-size = [8, 32]\nmutation-rate = [0.0, 0.1, 0.2]\n");
        assert_eq!(points.len(), 6);
        let labels: BTreeSet<String> = points.iter().map(label).collect();
        assert_eq!(labels.len(), 6);
    }

    #[test]
    fn draws_are_within_their_bounds_and_the_same_each_time() {
        let text = "[random]\npoints = 50\nseed = 3\nlearning-rate = { low = 1e-5, high = 1e-3, log = true }\nepochs = [1, 2]\n";
        let drawn = points(text);
        assert_eq!(drawn, points(text));
        let rates: Vec<f64> = drawn.iter().map(|point| point["learning-rate"].as_float().unwrap()).collect();
        assert!(rates.iter().all(|rate| (1e-5..=1e-3).contains(rate)));
        // By the logarithm, half of them are below the geometric mean.
        let below = rates.iter().filter(|&&rate| rate < 1e-4).count();
        assert!((15..=35).contains(&below), "{below}");
    }

    #[test]
    fn a_space_without_points_and_a_value_that_is_no_list_are_refused() {
        assert!(matches!(Space::default().points(), Err(SweepError::Nothing)));
        let space: Space = toml::from_str("[grid]\npopulation-size = 8").unwrap();
        assert!(space.points().unwrap_err().to_string().contains("population-size = [1, 2]"));
        for from in
            ["[]", "{ low = 0.0, high = 1.0, log = true }", "{ low = 1.0, high = 0.0 }", "{ low = nan, high = 1.0 }"]
        {
            let space: Space = toml::from_str(&format!("[random]\npoints = 2\ndropout = {from}")).unwrap();
            assert!(matches!(space.points(), Err(SweepError::NothingToDraw(name)) if name == "dropout"), "{from}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_from_is_told_with_the_setting_and_what_can() {
        for from in ["{ min = 0.1, max = 0.5 }", "{ low = 0.1, high = 0.5, lgo = true }", "0.1"] {
            let read = toml::from_str::<Space>(&format!("[random]\npoints = 2\ndropout = {from}"));
            let message = read.unwrap_err().message().to_owned();
            assert!(
                message.contains("cannot draw dropout") && message.contains("{ low = 0.1, high = 0.5 }"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_point_that_is_not_possible_is_named_by_its_number() {
        let points = points("[grid]\nmutation-rate = [0.5, 2.0]");
        let error = settings_of(&Table::new(), &points, Path::new("out")).unwrap_err().to_string();
        assert!(error.starts_with("point 2 of the sweep: mutation-rate = 2 "), "{error}");
    }
}
