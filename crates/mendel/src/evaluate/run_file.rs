//! Runs as TREC has them: what other programs measure.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::search::Rankings;
use crate::files::{FileError, write_atomically};

/// Why no run was written.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    /// An id that the format cannot hold.
    #[error("{path} cannot be written: the id '{id}' has white space in it, which parts the columns of a run")]
    Id {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes a line `query Q0 document rank score tag` for each result, ranks from 1.
///
/// # Errors
/// Where an id has white space in it, or the file cannot be written.
pub fn write_run(path: &Path, tag: &str, query_ids: &[String], rankings: &Rankings) -> Result<(), RunFileError> {
    let parted = |id: &&String| id.contains(char::is_whitespace);
    if let Some(id) = query_ids.iter().chain(&rankings.ids).find(parted) {
        return Err(RunFileError::Id { path: path.into(), id: id.clone() });
    }
    let mut bytes = Vec::new();
    lines(&mut bytes, tag, query_ids, rankings).expect("memory takes what is written to it");
    Ok(write_atomically(path, &bytes)?)
}

/// Writes what is relevant beside a run, as `run.qrels`: a line `query 0 document 1` for each, by which trec_eval measures
/// the run. `relevant` has each query's documents by their places in `ids`.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_qrels(
    run: &Path,
    query_ids: &[String],
    ids: &[String],
    relevant: &[Vec<usize>],
) -> Result<(), RunFileError> {
    let of_query = |(query, places): (&String, &Vec<usize>)| {
        places.iter().map(|&place| format!("{query} 0 {} 1\n", ids[place])).collect::<String>()
    };
    let text: String = query_ids.iter().zip(relevant).map(of_query).collect();
    Ok(write_atomically(&run.with_extension("qrels"), text.as_bytes())?)
}

fn lines(output: &mut Vec<u8>, tag: &str, query_ids: &[String], rankings: &Rankings) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    for (query, ranking) in query_ids.iter().zip(&rankings.of_query) {
        for (rank, (passage, score)) in (1..).zip(ranking) {
            writeln!(output, "{query} Q0 {} {rank} {score} {tag}", rankings.ids[*passage as usize])?;
        }
    }
    output.flush()
}
