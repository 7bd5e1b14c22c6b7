//! `mendel embed`.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use anyhow::anyhow;
use mendel::embed::{Named, jsonl, npy, read_texts, safetensors};
use mendel::files::write_atomically;
use mendel::progress::{Event, counted};
use mendel::saved_model::SavedModel;

use super::{Outcome, Run};
use crate::arguments::{EmbedArguments, EmbeddingsFormat, Side};

/// What stands for standard input in the place of a file.
const STDIN: &str = "-";

/// Writes one embedding per text.
pub fn run(arguments: &EmbedArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let model = SavedModel::load(run.settings, run.observer)?;
    let from_stdin = arguments.texts == Path::new(STDIN);
    let input = if from_stdin { "standard input".into() } else { arguments.texts.display().to_string() };
    let texts = read(arguments).map_err(|error| anyhow!("{input}: {error}"))?;
    if texts.is_empty() {
        run.observer.observe(Event::Warning(format!("{input} holds no text: there is nothing to embed")));
    }
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
    let output = &arguments.output.path;
    write_atomically(output, &bytes)?;
    let vectors = counted(texts.len() as u64, "vectors");
    run.observer.observe(Event::Note(format!("{vectors} of {} numbers in {}", embeddings.width, output.display())));
    Ok(Outcome::Done)
}

fn read(arguments: &EmbedArguments) -> anyhow::Result<Vec<Named>> {
    let with_title = arguments.side == Side::Passage;
    if arguments.texts == Path::new(STDIN) {
        return Ok(read_texts(io::stdin().lock(), with_title)?);
    }
    Ok(read_texts(BufReader::new(File::open(&arguments.texts)?), with_title)?)
}
