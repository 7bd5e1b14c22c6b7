//! One file: attempts, progress, and whether it is what the Hub said.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiRepo, Metadata};
use tracing::info;

use super::{HubError, Repository};
use crate::files::sha256;
use crate::progress::{Event, Observer};

/// Waits before the attempts after the first.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Fetches a file of a repository into the cache.
pub(super) fn fetch(
    repository: &Repository,
    api: &Api,
    remote: &ApiRepo,
    file: &str,
    observer: &mut dyn Observer,
) -> Result<(), HubError> {
    with_patience(|| attempt(repository, api, remote, file, observer))
}

/// Tries again what may well pass.
pub(super) fn with_patience<T>(mut attempt: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
    let mut waits = WAITS.iter();
    loop {
        match attempt() {
            Err(error) if error.is_transient() => match waits.next() {
                Some(&wait) => {
                    info!(%error, "fetching again");
                    std::thread::sleep(wait);
                }
                None => return Err(error),
            },
            other => return other,
        }
    }
}

fn attempt(
    repository: &Repository,
    api: &Api,
    remote: &ApiRepo,
    file: &str,
    observer: &mut dyn Observer,
) -> Result<(), HubError> {
    let metadata = api.metadata(&remote.url(file)).map_err(|error| repository.failed(Some(file), error))?;
    let blob = repository.cached(repository.main()).blob_path(metadata.etag());
    let cache_error = |source| HubError::Cache { path: blob.clone(), source };
    ready_to_resume(&blob.with_extension("part"), metadata.size() as u64).map_err(cache_error)?;
    let (what, total) = (format!("Fetching {file}"), Some(metadata.size() as u64));
    observer.observe(Event::StageStarted { what, unit: "bytes", total });
    let fetched = remote.download_with_progress(file, Shown { observer, done: 0 });
    observer.observe(Event::StageFinished);
    let link = fetched.map_err(|error| repository.failed(Some(file), error))?;
    let found = look_over(&link, &metadata).map_err(cache_error)?;
    let Some(why) = found else { return Ok(()) };
    fs::remove_file(&link).and_then(|()| fs::remove_file(&blob)).map_err(cache_error)?;
    Err(HubError::Damaged { file: format!("{file} of {}", repository.name()), why })
}

/// What an earlier run left of a file is gone on with. The crate asks for the bytes after it, which a server refuses
/// where there are none: of a whole one the last byte is fetched again, and one too long is no beginning of the file.
fn ready_to_resume(part: &Path, size: u64) -> std::io::Result<()> {
    let Ok(held) = fs::metadata(part).map(|part| part.len()) else { return Ok(()) };
    if held < size {
        return Ok(());
    }
    let keep = if held == size { size.saturating_sub(1) } else { 0 };
    File::options().write(true).open(part)?.set_len(keep)
}

/// Whether a file in the cache has the SHA-256 that its blob is named by; a blob may be named otherwise.
pub(super) fn is_sound(path: &Path) -> bool {
    let Ok(blob) = path.canonicalize() else { return false };
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !is_sha256(name) || hex_of(&blob).is_ok_and(|found| found == name)
}

fn is_sha256(tag: &str) -> bool {
    tag.len() == 64 && tag.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn hex_of(path: &Path) -> std::io::Result<String> {
    Ok(sha256(path, |_| ())?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What is wrong with a fetched file; nothing where it is as the Hub said. The tag of a large file is its SHA-256.
fn look_over(path: &Path, metadata: &Metadata) -> std::io::Result<Option<String>> {
    let (held, size) = (fs::metadata(path)?.len(), metadata.size() as u64);
    if held != size {
        return Ok(Some(format!("it has {held} bytes, not {size}")));
    }
    let tag = metadata.etag();
    if !is_sha256(tag) {
        return Ok(None);
    }
    let found = hex_of(path)?;
    Ok((found != tag.to_lowercase()).then(|| format!("its SHA-256 is {found}, not {tag}")))
}

/// Tells an observer how far a download is.
struct Shown<'a> {
    observer: &'a mut dyn Observer,
    done: u64,
}

impl Progress for Shown<'_> {
    fn init(&mut self, _: usize, _: &str) {
        self.done = 0;
    }

    fn update(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.observer.observe(Event::StageAdvanced { done: self.done });
    }

    fn finish(&mut self) {}
}
