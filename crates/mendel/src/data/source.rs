//! From the name of a dataset to its files.

use std::path::{Path, PathBuf};

use super::beir::BeirSplit;
use super::format::Format;
use super::{DataError, beir};
use crate::hub;
use crate::progress::{Event, Observer};

/// Parts of a file's name that mark it as the evaluation's.
const EVALUATION_NAMES: [&str; 5] = ["dev", "validation", "valid", "val", "eval"];
/// The part that marks it as neither's: a test split is for the very end, and MS MARCO's has no labels.
const TEST_NAME: &str = "test";

/// A file with rows in it, or a collection's folder.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    pub path: PathBuf,
    pub format: Format,
}

impl DataFile {
    /// The files whose content decides what its rows are.
    pub(super) fn parts(&self) -> Vec<PathBuf> {
        match self.format {
            Format::Beir(split) => beir::files(&self.path, split),
            _ => vec![self.path.clone()],
        }
    }
}

/// The files of a dataset.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// To train on.
    pub training: Vec<DataFile>,
    /// Held out by the dataset itself; often none.
    pub evaluation: Vec<DataFile>,
    /// Of a collection, its `test` split: for the very end.
    test: Vec<DataFile>,
}

impl Source {
    /// A name on the Hub, a collection in BEIR's layout, a file, or a folder's files in the order of their names (not the
    /// folders in it). In a folder the names say what is held out, unless there is nothing else.
    ///
    /// # Errors
    /// Where there is nothing of that name, or a file cannot be read or recognised.
    pub(super) fn find(name: &str, observer: &mut dyn Observer) -> Result<Source, DataError> {
        let path = Path::new(name);
        if let Some(splits) = beir::splits(path) {
            return Ok(of_collection(path, &splits));
        }
        if path.is_dir() {
            return of_folder(path, observer);
        }
        if !path.exists()
            && let Some(dataset) = hub::dataset(name, observer)?
        {
            let (training, evaluation) = (shards(&dataset.train)?, shards(&dataset.validation)?);
            return Ok(Source { training, evaluation, test: Vec::new() });
        }
        if !path.exists() {
            return Err(DataError::NotFound { name: name.to_string() });
        }
        let file = Format::of(path)?.map(|format| DataFile { path: path.to_path_buf(), format });
        Ok(Source { training: file.into_iter().collect(), ..Source::default() })
    }

    /// Refuses a collection that has nothing to train on: what it is tested with is not for that.
    pub(super) fn ensure_trains(&self) -> Result<(), DataError> {
        match self.evaluation.first().or(self.test.first()).filter(|_| self.training.is_empty()) {
            Some(file) => Err(DataError::NoTrainSplit { folder: file.path.clone() }),
            None => Ok(()),
        }
    }

    /// What is evaluated where the whole dataset is named as held out.
    pub(super) fn held_out(self) -> Vec<DataFile> {
        let Source { training, evaluation, test } = self;
        [evaluation, test, training].into_iter().find(|files| !files.is_empty()).unwrap_or_default()
    }
}

fn shards(paths: &[PathBuf]) -> Result<Vec<DataFile>, DataError> {
    let file = |path: &PathBuf| Ok(Format::of(path)?.map(|format| DataFile { path: path.clone(), format }));
    paths.iter().filter_map(|path| file(path).transpose()).collect()
}

/// A collection is trained on its `train` split and evaluated on `dev`.
fn of_collection(folder: &Path, splits: &[BeirSplit]) -> Source {
    let of = |split: BeirSplit| {
        let file = DataFile { path: folder.to_path_buf(), format: Format::Beir(split) };
        splits.contains(&split).then_some(file).into_iter().collect()
    };
    Source { training: of(BeirSplit::Train), evaluation: of(BeirSplit::Dev), test: of(BeirSplit::Test) }
}

fn of_folder(folder: &Path, observer: &mut dyn Observer) -> Result<Source, DataError> {
    let mut source = Source::default();
    let mut tests = Vec::new();
    let mut left_out = Vec::new();
    for path in visible_files(folder)? {
        match Format::of(&path) {
            Ok(Some(format)) => {
                let place = if is_named(&path, &[TEST_NAME]) {
                    &mut tests
                } else if is_named(&path, &EVALUATION_NAMES) {
                    &mut source.evaluation
                } else {
                    &mut source.training
                };
                place.push(DataFile { path, format });
            }
            Ok(None) => left_out.push(format!("{} is empty", path.display())),
            Err(DataError::UnknownFormat { path, why }) => left_out.push(format!("{}: {why}", path.display())),
            Err(error) => return Err(error),
        }
    }
    if source.training.is_empty() {
        source.training =
            std::mem::take(if source.evaluation.is_empty() { &mut tests } else { &mut source.evaluation });
    }
    left_out.extend(tests.iter().map(|file| format!("{} is a test split by its name", file.path.display())));
    if source.training.is_empty() {
        return Err(DataError::EmptyFolder { folder: folder.to_path_buf(), left_out });
    }
    if !left_out.is_empty() {
        observer.observe(Event::Warning(format!("not all of {} is read: {}", folder.display(), left_out.join("; "))));
    }
    Ok(source)
}

fn visible_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read_error = |source| DataError::Read { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        if path.is_file() && !file_name(&path).starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_named(path: &Path, names: &[&str]) -> bool {
    file_name(path).to_lowercase().split(['.', '-', '_']).any(|part| names.contains(&part))
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
