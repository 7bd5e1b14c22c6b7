//! `mendel eval`.

use mendel::data::TokenCache;
use mendel::evaluate::{Evaluation, Evaluator};
use mendel::files::write_atomically;
use mendel::report::table::{Table, measure};
use mendel::saved_model::SavedModel;
use mendel::train::data_request;
use serde_json::json;

use super::{Outcome, Run};
use crate::arguments::EvalArguments;
use crate::display::print_result;

/// Evaluates the saved model that `settings.model` names on all pairs of `settings.dataset`.
pub fn run(arguments: &EvalArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let settings = run.settings;
    let model = SavedModel::load(settings)?;
    let cache = TokenCache { folder: settings.token_folder()?, encoder: model.texts };
    let set = data_request(settings).evaluation_of(&settings.dataset, &cache, run.observer)?;
    let evaluator = Evaluator { set, batch_size: settings.batch_size };
    let evaluation = evaluator.evaluate(&model.encoder, run.observer)?;
    let result = json!({
        "model": settings.model,
        "dataset": settings.dataset,
        "eval": evaluation.measured,
        "embedding_quality": evaluation.quality,
        "eval_time": evaluation.seconds,
    });
    let text = serde_json::to_string_pretty(&result)? + "\n";
    if let Some(folder) = &arguments.results_dir {
        write_atomically(&folder.join("evaluation.json"), text.as_bytes())?;
    }
    print_result(&if arguments.json { text } else { table(&evaluation).to_string() })?;
    Ok(Outcome::Done)
}

fn table(evaluation: &Evaluation) -> Table {
    let mut table = Table::new(["", "corpus", "in batch"]);
    let measured = &evaluation.measured;
    for ((name, value), within) in measured.retrieval.iter().zip(measured.in_batch.values()) {
        table.row([name.to_owned(), measure(value), measure(within)]);
    }
    table
}
