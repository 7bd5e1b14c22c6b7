//! What a run reports, shown on stderr: progress bars on a terminal, plain lines elsewhere. Results go to stdout.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use mendel::progress::{Event, Observer, counted};

/// How often a bar's clock moves on while nothing is reported.
const TICK: Duration = Duration::from_millis(500);

/// One line on stderr. A reader that has left is no reason to fail.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A result, on stdout. A reader that has left has read enough.
///
/// # Errors
/// Where stdout cannot be written for another reason, such as a full disk.
pub fn print_result(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Bars that are redrawn, and lines above them.
    Bars,
    /// A line per stage and per logged step.
    Lines,
    /// Warnings alone.
    Quiet,
}

/// Shows what a run reports.
pub struct Display {
    manner: Manner,
    bars: MultiProgress,
    /// The innermost last: an evaluation may begin within a training.
    stages: Vec<Stage>,
    /// The run of those that a comparison has.
    run: Option<RunInAll>,
    /// The line of the training that was told last.
    training: String,
    /// The last `mrr@10` of the run.
    mrr_at_10: Option<f64>,
    /// Set when there is a state that an interruption saves.
    saves: Arc<AtomicBool>,
}

/// A run among all of a comparison.
#[derive(Clone, Copy)]
struct RunInAll {
    seed: u64,
    number: usize,
    of: usize,
    later: usize,
}

struct Stage {
    bar: ProgressBar,
    /// Where counting began: a resumed run's first step is not the first.
    first_step: Option<(u64, Instant)>,
}

impl Display {
    /// `saves` is set once there is something to save; `bars` is where other lines on stderr are written around.
    pub fn new(quiet: bool, bars: MultiProgress, saves: Arc<AtomicBool>) -> Display {
        let manner = match (quiet, bars.is_hidden()) {
            (true, _) => Manner::Quiet,
            (false, true) => Manner::Lines,
            (false, false) => Manner::Bars,
        };
        Display { manner, bars, stages: Vec::new(), run: None, training: String::new(), mrr_at_10: None, saves }
    }

    fn line(&self, line: &str) {
        if self.manner != Manner::Quiet {
            self.bars.suspend(|| say(line));
        }
    }

    fn start(&mut self, what: String, unit: &str, total: Option<u64>) {
        let bar = match self.manner {
            Manner::Bars => {
                let bar = self.bars.add(bar(what, unit, total));
                bar.enable_steady_tick(TICK);
                bar
            }
            Manner::Lines | Manner::Quiet => {
                let line = stage_line(&what, unit, total);
                // A training goes on after each evaluation.
                if unit != "steps" || self.training != line {
                    self.line(&line);
                }
                if unit == "steps" {
                    self.training = line;
                }
                ProgressBar::hidden()
            }
        };
        self.stages.push(Stage { bar, first_step: None });
    }

    fn step(&mut self, logged: &Logged<'_>) {
        let Some(stage) = self.stages.last_mut() else {
            return self.line(&logged.line(None));
        };
        let now = Instant::now();
        let (first, since) = *stage.first_step.get_or_insert((logged.step, now));
        match self.manner {
            Manner::Bars => {
                let later = self.run.map_or(0, |run| run.later);
                let remaining = logged.remaining(first, now.duration_since(since), later);
                stage.bar.set_message(state(logged, self.mrr_at_10, remaining));
            }
            Manner::Lines | Manner::Quiet => {
                let later = self.run.map_or(0, |run| run.later);
                let remaining = logged.remaining(first, now.duration_since(since), later);
                let place = self.run.filter(|run| run.of > 1);
                let place = place.map(|run| format!("[{}/{}, seed {}] ", run.number, run.of, run.seed));
                self.line(&(place.unwrap_or_default() + &logged.line(remaining)));
            }
        }
    }
}

impl Observer for Display {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::StageStarted { what, unit, total } => self.start(what, unit, total),
            Event::StageAdvanced { done } => {
                if let Some(stage) = self.stages.last() {
                    stage.bar.set_position(done);
                }
            }
            Event::StageFinished => {
                if let Some(stage) = self.stages.pop() {
                    stage.bar.finish_and_clear();
                }
            }
            Event::RunStarted { seed, number, of, later, .. } => {
                self.run = Some(RunInAll { seed, number, of, later });
                self.training.clear();
                self.mrr_at_10 = None;
            }
            Event::Step { arm, step, total, loss, learning_rate, pairs_per_second } => {
                self.step(&Logged { arm, step, total, loss, learning_rate, pairs_per_second });
            }
            Event::Evaluated { arm, step, mrr_at_10, ndcg_at_10 } => {
                self.mrr_at_10 = Some(mrr_at_10);
                self.line(&format!("{arm} step {step}: mrr@10 {mrr_at_10:.4}, ndcg@10 {ndcg_at_10:.4}"));
            }
            Event::TrainingBegins => self.saves.store(true, Ordering::SeqCst),
            Event::Saved { path } => self.line(&format!("saved {}", path.display())),
            Event::Warning(warning) => self.bars.suspend(|| say(&format!("mendel: warning: {warning}"))),
            Event::Note(note) => self.line(&note),
        }
    }
}

/// A training step that was logged.
struct Logged<'a> {
    arm: &'a str,
    step: u64,
    total: u64,
    loss: f64,
    learning_rate: f64,
    pairs_per_second: f64,
}

impl Logged<'_> {
    /// The time that the steps left will take, those of `later` runs as long as this one included, at the rate since
    /// step `first`, `elapsed` ago.
    fn remaining(&self, first: u64, elapsed: Duration, later: usize) -> Option<Duration> {
        let done = self.step.checked_sub(first).filter(|&done| done > 0)?;
        let left = self.total.saturating_sub(self.step) + later as u64 * self.total;
        Duration::try_from_secs_f64(elapsed.as_secs_f64() / done as f64 * left as f64).ok()
    }

    fn line(&self, remaining: Option<Duration>) -> String {
        let Logged { arm, step, total, loss, learning_rate, pairs_per_second } = self;
        let mut line = format!(
            "{arm} step {step}/{total}: loss {loss:.4}, learning rate {learning_rate:.2e}, {pairs_per_second:.1} pairs/s"
        );
        if let Some(remaining) = remaining {
            line += &format!(", {} left", HumanDuration(remaining));
        }
        line
    }
}

/// What a bar tells beside its steps.
fn state(logged: &Logged<'_>, mrr_at_10: Option<f64>, remaining: Option<Duration>) -> String {
    let mrr = mrr_at_10.map_or(String::new(), |mrr| format!(", mrr@10 {mrr:.4}"));
    let remaining = remaining.map_or(String::new(), |time| format!(", all done in {}", HumanDuration(time)));
    format!("loss {:.4}{mrr}, {:.1} pairs/s{remaining}", logged.loss, logged.pairs_per_second)
}

fn stage_line(what: &str, unit: &str, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{what} ({})", counted(total, unit)),
        None => what.into(),
    }
}

/// A bar, or where the total is not known a count.
fn bar(what: String, unit: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}"),
        None => format!("{{prefix}} {{pos}} {unit}, {{per_sec}} {{msg}}"),
    };
    // A unit that no template can hold costs the unit, not the run.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("per_sec", per_second);
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(style).with_prefix(what)
}

/// The rate of a bar: a decimal is enough.
fn per_second(state: &ProgressState, text: &mut dyn fmt::Write) {
    // A bar shows the rest of its line where its rate cannot be written.
    let _ = write!(text, "{:.1}/s", state.per_sec());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGGED: Logged<'_> =
        Logged { arm: "genetic", step: 30, total: 100, loss: 1.5, learning_rate: 2e-5, pairs_per_second: 12.34 };

    #[test]
    fn a_logged_step_is_one_line_with_its_numbers() {
        let line = LOGGED.line(Some(Duration::from_secs(70)));
        assert_eq!(line, "genetic step 30/100: loss 1.5000, learning rate 2.00e-5, 12.3 pairs/s, 70 seconds left");
    }

    #[test]
    fn the_time_left_follows_from_the_steps_of_this_run_alone() {
        // Resumed at step 20: 10 steps in 5 seconds, 70 to go.
        assert_eq!(LOGGED.remaining(20, Duration::from_secs(5), 0), Some(Duration::from_secs(35)));
        // And two more runs of 100.
        assert_eq!(LOGGED.remaining(20, Duration::from_secs(5), 2), Some(Duration::from_secs(135)));
        assert_eq!(LOGGED.remaining(30, Duration::ZERO, 0), None);
    }

    #[test]
    fn a_stage_whose_total_is_unknown_is_told_without_one() {
        assert_eq!(stage_line("Tokenising", "texts", Some(12)), "Tokenising (12 texts)");
        assert_eq!(stage_line("Tokenising", "texts", Some(1)), "Tokenising (1 text)");
        assert_eq!(stage_line("Reading pairs.tsv", "rows", None), "Reading pairs.tsv");
    }

    #[test]
    fn stages_within_stages_and_reports_without_a_stage_are_shown() {
        let mut display = Display::new(true, MultiProgress::new(), Arc::default());
        let started = |what: &str| Event::StageStarted { what: what.into(), unit: "steps", total: Some(2) };
        for event in [
            Event::StageAdvanced { done: 1 },
            Event::StageFinished,
            started("Training genetic"),
            started("Evaluating"),
            Event::StageAdvanced { done: 2 },
            Event::StageFinished,
        ] {
            display.observe(event);
        }
        assert_eq!(display.stages.len(), 1);
    }
}
