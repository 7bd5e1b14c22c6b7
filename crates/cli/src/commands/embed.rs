//! `mendel embed`.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use anyhow::anyhow;
use mendel::embed::{Named, jsonl, npy, read_texts, safetensors};
use mendel::files::write_atomically;
use mendel::progress::Event;
use mendel::saved_model::SavedModel;

use super::{Outcome, Run};
use crate::arguments::{EmbedArguments, EmbeddingsFormat, Side};

/// Writes one embedding per text.
pub fn run(arguments: &EmbedArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let model = SavedModel::load(run.settings, run.observer)?;
    let texts = read(&arguments.texts).map_err(|error| anyhow!("{}: {error}", arguments.texts.display()))?;
    let passages: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let tokens = match arguments.side {
        Side::Passage => model.texts.passages(&passages),
        Side::Query => model.texts.queries(&passages),
    };
    let total = Some(texts.len() as u64);
    run.observer.observe(Event::StageStarted { what: "Embedding".into(), unit: "texts", total });
    let embeddings =
        model.encoder.embed(&tokens, |done| run.observer.observe(Event::StageAdvanced { done: done as u64 }))?;
    run.observer.observe(Event::StageFinished);
    let bytes = match arguments.output.format {
        EmbeddingsFormat::Npy => npy(&embeddings),
        EmbeddingsFormat::Safetensors => safetensors(&embeddings, &texts),
        EmbeddingsFormat::Jsonl => {
            let mut bytes = Vec::new();
            jsonl(&embeddings, &texts, &mut bytes)?;
            bytes
        }
    };
    write_atomically(&arguments.output.path, &bytes)?;
    Ok(Outcome::Done)
}

fn read(path: &Path) -> anyhow::Result<Vec<Named>> {
    if path == Path::new("-") {
        return Ok(read_texts(io::stdin().lock())?);
    }
    Ok(read_texts(BufReader::new(File::open(path)?))?)
}
