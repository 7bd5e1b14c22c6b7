//! What a run tells while it works. The library knows nothing of terminals: it reports, an [`Observer`] shows.

use std::path::Path;

/// Something worth showing.
#[derive(Debug)]
#[expect(missing_docs, reason = "the events say what their fields are")]
pub enum Event<'a> {
    /// A stage that counts begins: `what` is "Reading train.jsonl.gz", "Tokenising", "Training genetic", …
    /// `total` is in `unit`s ("rows", "pairs", "texts", "steps") and absent where it is not known.
    StageStarted { what: String, unit: &'static str, total: Option<u64> },
    /// The current stage has done so many units in all.
    StageAdvanced { done: u64 },
    /// The current stage is over.
    StageFinished,
    /// One arm with one seed begins: run `number` of `of`, after which `later` are still to be trained.
    RunStarted { arm: &'a str, seed: u64, number: usize, of: usize, later: usize },
    /// A training step of the current stage was logged (every `log_steps`).
    Step { arm: &'a str, step: u64, total: u64, loss: f64, learning_rate: f64, pairs_per_second: f64 },
    /// An evaluation ended.
    Evaluated { arm: &'a str, step: u64, mrr_at_10: f64, ndcg_at_10: f64 },
    /// A checkpoint stands complete on disk.
    Saved { path: &'a Path },
    /// Training begins: from now on an interrupted run saves its state.
    TrainingBegins,
    /// Something the user should know that does not stop the run.
    Warning(String),
    /// Something worth a line: what was loaded, from where, how much.
    Note(String),
}

/// A number of `units` as one says it: "2 queries", "1 query".
pub fn counted(number: u64, units: &str) -> String {
    match (number, units.strip_suffix("ies"), units.strip_suffix('s')) {
        (1, Some(unit), _) => format!("1 {unit}y"),
        (1, None, Some(unit)) => format!("1 {unit}"),
        _ => format!("{number} {units}"),
    }
}

/// Shows what a run reports.
pub trait Observer {
    /// Takes note of one event. Must return soon: the run waits for it.
    fn observe(&mut self, event: Event<'_>);
}

/// Shows nothing.
pub struct Silent;

impl Observer for Silent {
    fn observe(&mut self, _: Event<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_something_is_told_in_the_singular() {
        assert_eq!(["queries", "texts"].map(|units| counted(1, units)), ["1 query", "1 text"]);
        assert_eq!([0, 2].map(|number| counted(number, "queries")), ["0 queries", "2 queries"]);
    }
}
