//! `mendel eval`.

use std::path::Path;

use anyhow::Context;
use mendel::data::TokenCache;
use mendel::data::beir::{Collection, is_collection};
use mendel::data::sts::sentence_pairs;
use mendel::evaluate::collection::{Figures, Retrieved, by_bm25, by_model};
use mendel::evaluate::sts::{Similarity, similarity};
use mendel::evaluate::{Evaluation, Evaluator, write_qrels, write_run};
use mendel::files::{check_writable, write_atomically};
use mendel::report::table::{Table, measure};
use mendel::saved_model::SavedModel;
use mendel::train::data_request;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, Run};
use crate::arguments::{EvalArguments, Task};
use crate::display::print_result;
use crate::failure::WrongUsage;

/// What goes into a run file as the name of the model's run.
const RUN_TAG: &str = "mendel";

/// Evaluates the saved model that `settings.model` names on `settings.dataset`.
pub fn run(arguments: &EvalArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    check_flags(arguments)?;
    check_task(arguments.task, &run.settings.dataset)?;
    let files = [arguments.run_file.as_deref().and_then(Path::parent), arguments.results_dir.as_deref()];
    files.into_iter().flatten().try_for_each(check_writable)?;
    let model = SavedModel::load(run.settings, run.observer)?;
    let (result, table) = match arguments.task {
        Task::Pairs => pairs(&model, arguments, run)?,
        Task::Sts => sts(&model, run)?,
        Task::Beir => beir(&model, arguments, run)?,
    };
    let named = json!({"model": run.settings.model, "dataset": run.settings.dataset});
    let text = serde_json::to_string_pretty(&Named { named, result })? + "\n";
    if let Some(folder) = &arguments.results_dir {
        write_atomically(&folder.join("evaluation.json"), text.as_bytes())?;
    }
    print_result(&if arguments.json { text } else { table.to_string() })?;
    Ok(Outcome::Done)
}

/// Refuses flags that would do nothing.
fn check_flags(arguments: &EvalArguments) -> Result<(), WrongUsage> {
    let EvalArguments { task, split, relevance_level, no_bm25, run_file, .. } = arguments;
    if *task == Task::Sts && run_file.is_some() {
        return Err(WrongUsage::new("--run-file is for retrieval: --task sts retrieves nothing"));
    }
    let of_collections =
        [("--split", split.is_some()), ("--relevance-level", relevance_level.is_some()), ("--no-bm25", *no_bm25)];
    match of_collections.into_iter().find(|(_, given)| *given && *task != Task::Beir) {
        Some((flag, _)) => Err(WrongUsage::new(format!("{flag} is for collections: it needs --task beir"))),
        None => Ok(()),
    }
}

/// Refuses to take a collection for pairs, of whose corpus only what is judged would be searched.
fn check_task(task: Task, dataset: &str) -> Result<(), WrongUsage> {
    if task == Task::Pairs && is_collection(Path::new(dataset)) {
        let what = format!("'{dataset}' is a collection in BEIR's layout: --task beir searches its whole corpus");
        return Err(WrongUsage::new(what));
    }
    Ok(())
}

/// A result and what it is of.
#[derive(Serialize)]
struct Named {
    #[serde(flatten)]
    named: Value,
    #[serde(flatten)]
    result: Value,
}

/// All pairs of a dataset: its queries against its passages.
fn pairs(model: &SavedModel, arguments: &EvalArguments, run: &mut Run<'_>) -> anyhow::Result<(Value, Table)> {
    let settings = run.settings;
    let cache = TokenCache { folder: settings.token_folder()?, encoder: model.texts.clone() };
    let set = data_request(settings).evaluation_of(&settings.dataset, &cache, run.observer)?;
    let evaluator = Evaluator { set, batch_size: settings.batch_size, temperature: settings.temperature };
    let evaluation = evaluator.evaluate(&model.encoder, run.observer)?;
    if let Some(path) = &arguments.run_file {
        let set = &evaluator.set;
        write_run(path, RUN_TAG, &set.query_ids, &evaluation.rankings)?;
        write_qrels(path, &set.query_ids, &set.passage_ids, &set.relevant)?;
    }
    let (queries, passages) = (evaluator.set.queries.len(), evaluator.set.passages.len());
    let result = json!({
        "queries": queries,
        "passages": passages,
        "eval": evaluation.measured,
        "embedding_quality": evaluation.quality,
        "eval_time": evaluation.seconds,
    });
    Ok((result, table_of_pairs(&evaluation, &format!("{queries} queries, {passages} passages"))))
}

fn table_of_pairs(evaluation: &Evaluation, counts: &str) -> Table {
    let mut table = Table::new([counts, "corpus", "in batch"]);
    let measured = &evaluation.measured;
    for ((name, value), within) in measured.retrieval.iter().zip(measured.in_batch.values()) {
        table.row([name.to_owned(), measure(value), measure(within)]);
    }
    table
}

/// Sentence pairs with a similarity.
fn sts(model: &SavedModel, run: &mut Run<'_>) -> anyhow::Result<(Value, Table)> {
    let pairs = sentence_pairs(Path::new(&run.settings.dataset))?;
    let similarity = similarity(model, &pairs, run.observer).with_context(|| run.settings.dataset.clone())?;
    let Similarity { spearman, pearson, pairs } = similarity;
    let mut table = Table::new(["pairs", &pairs.to_string()]);
    table.row(["Spearman".to_owned(), measure(spearman)]);
    table.row(["Pearson".to_owned(), measure(pearson)]);
    Ok((json!({"task": "sts", "sts": similarity}), table))
}

/// A collection in BEIR's layout, with BM25 beside the model.
fn beir(model: &SavedModel, arguments: &EvalArguments, run: &mut Run<'_>) -> anyhow::Result<(Value, Table)> {
    let folder = Path::new(&run.settings.dataset);
    if !folder.exists() {
        let what = format!("--task beir is of a collection's folder: there is none '{}'", folder.display());
        return Err(WrongUsage::new(what + ", name one with --dataset").into());
    }
    let split = arguments.split.as_deref().unwrap_or("test");
    let collection = Collection::open(folder, split, run.observer)?;
    let level = arguments.relevance_level.unwrap_or(1);
    let bm25 = if arguments.no_bm25 { None } else { Some(by_bm25(&collection, level, run.observer)?) };
    let own = by_model(model, &collection, level, run.observer)?;
    if let Some(path) = &arguments.run_file {
        let ids: Vec<String> = collection.queries.iter().map(|query| query.id.clone()).collect();
        write_run(path, RUN_TAG, &ids, &own.rankings)?;
    }
    let systems: Vec<(&str, Figures)> = bm25
        .iter()
        .map(|bm25| ("BM25", bm25))
        .chain([("model", &own)])
        .map(|(name, found)| (name, Retrieved::figures(found)))
        .collect();
    let result = json!({
        "task": "beir",
        "split": split,
        "relevance_level": level,
        "queries": collection.queries.len(),
        "documents": collection.documents,
        "systems": systems.iter().map(|(name, figures)| (name.to_lowercase(), json!(figures))).collect::<serde_json::Map<_, _>>(),
    });
    let counts = format!("{split}: {} queries, {} documents", collection.queries.len(), collection.documents);
    Ok((result, table_of_systems(&systems, &counts)))
}

fn table_of_systems(systems: &[(&str, Figures)], counts: &str) -> Table {
    let mut table = Table::new([counts, "MRR@10", "nDCG@10", "MAP@100", "R@1", "R@10", "R@100", "R@1000", "seconds"]);
    for (name, Figures { mean, seconds }) in systems {
        let measures = [
            mean.mrr_at_10,
            mean.ndcg_at_10,
            mean.map_at_100,
            mean.recall_at_1,
            mean.recall_at_10,
            mean.recall_at_100,
            mean.recall_at_1000,
        ];
        let numbers = measures.map(measure).into_iter().chain([format!("{seconds:.1}")]);
        table.row(std::iter::once((*name).to_owned()).chain(numbers));
    }
    table
}
