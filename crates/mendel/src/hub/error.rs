//! What can go wrong between here and the Hub, in words that say what to do.

use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

use super::Repository;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum HubError {
    /// No connection.
    #[error("cannot reach {endpoint} for {name}, which is neither here nor in the cache ({why}); {ways}")]
    Unreachable { endpoint: String, name: String, why: String, ways: &'static str },
    /// `HF_HUB_OFFLINE` is set.
    #[error("{name} is not whole in the cache {} and HF_HUB_OFFLINE is set; unset it to fetch, {ways}", cache.display())]
    Offline { name: String, cache: PathBuf, ways: &'static str },
    /// 401, 403.
    #[error(
        "{endpoint} does not give out {name} (status {status}): it is gated, private or does not exist; check the name, or set HF_TOKEN to a token that may read it; {ways}"
    )]
    Denied { endpoint: String, name: String, status: u16, ways: &'static str },
    /// 404.
    #[error("{endpoint} has nothing under the name of {what}: check it; {ways}")]
    NotFound { endpoint: String, what: String, ways: &'static str },
    /// 429.
    #[error(
        "{endpoint} has had too many requests and refuses {name} (status 429); wait some minutes and run again, which goes on where this ended, or set HF_TOKEN"
    )]
    TooManyRequests { endpoint: String, name: String },
    /// The server failed, or the connection ended, more than once.
    #[error("{file} could not be fetched whole ({why}); run again: it goes on where this ended")]
    Interrupted { file: String, why: String },
    /// The bytes are not those that the Hub said.
    #[error("{file} was damaged on the way ({why}) and is removed; run again to fetch it anew")]
    Damaged { file: String, why: String },
    /// Another process holds the lock.
    #[error("another process is fetching {file}; wait for it and run again")]
    Locked { file: String },
    /// The repository is not what it should be.
    #[error(
        "'{repository}' has no {file} on the Hub: it is not a BERT that can be read here (weights must be in the safetensors format)"
    )]
    Lacks { repository: String, file: &'static str },
    /// The shards of a dataset are not complete.
    #[error(
        "'{repository}' on the Hub has no whole set of Parquet files for train and validation in {folder}/: it may be in the middle of a change; try later, or give a local copy"
    )]
    Shards { repository: String, folder: String },
    /// An answer that is not the Hub's.
    #[error("{url} does not answer as the Hub does ({why}); check HF_ENDPOINT")]
    Protocol { url: String, why: String },
    /// The cache cannot be written.
    #[error("cannot write to the cache {}: {source}; make room, or name another folder with HF_HOME", path.display())]
    Cache { path: PathBuf, source: std::io::Error },
    /// There is no folder for the cache.
    #[error("there is no home folder for the Hub's cache: name a folder with HF_HOME")]
    NoHome,
}

impl HubError {
    /// Whether another attempt may well do better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, HubError::Interrupted { .. })
    }
}

impl Repository {
    /// What the crate's error means for a file, or for the repository's list of files.
    pub(super) fn failed(&self, file: Option<&str>, error: ApiError) -> HubError {
        let (endpoint, name, ways) = (self.hub.endpoint.clone(), self.name(), self.ways_on());
        let what = file.map_or(name.clone(), |file| format!("{file} of {name}"));
        let error = match error {
            ApiError::RequestError(error) => *error,
            ApiError::IoError(source) => return self.io_failed(what, source),
            ApiError::LockAcquisition(_) => return HubError::Locked { file: what },
            other => return HubError::Protocol { url: endpoint, why: other.to_string() },
        };
        match error {
            ureq::Error::StatusCode(status @ (401 | 403)) => HubError::Denied { endpoint, name, status, ways },
            ureq::Error::StatusCode(404) => HubError::NotFound { endpoint, what, ways },
            ureq::Error::StatusCode(429) => HubError::TooManyRequests { endpoint, name },
            ureq::Error::StatusCode(status) => HubError::Interrupted { file: what, why: format!("status {status}") },
            ureq::Error::Io(source) if ended_on_the_way(&source) => {
                HubError::Interrupted { file: what, why: source.to_string() }
            }
            ureq::Error::Io(source) => HubError::Unreachable { endpoint, name, why: source.to_string(), ways },
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Timeout(_) => {
                HubError::Unreachable { endpoint, name, why: error.to_string(), ways }
            }
            other => HubError::Protocol { url: endpoint, why: other.to_string() },
        }
    }

    /// An error of input or output is the disk's or, while a body is read, the connection's.
    fn io_failed(&self, file: String, source: std::io::Error) -> HubError {
        use std::io::ErrorKind as Kind;
        let of_the_disk = [
            Kind::StorageFull,
            Kind::QuotaExceeded,
            Kind::PermissionDenied,
            Kind::ReadOnlyFilesystem,
            Kind::NotADirectory,
            Kind::AlreadyExists,
            Kind::NotFound,
        ];
        if of_the_disk.contains(&source.kind()) {
            return HubError::Cache { path: self.hub.cache.path().clone(), source };
        }
        HubError::Interrupted { file, why: source.to_string() }
    }
}

/// Whether there was a connection, which ended too soon. All else (no such host, nobody who answers, a certificate that
/// nobody vouches for) is no connection.
fn ended_on_the_way(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    [Kind::UnexpectedEof, Kind::ConnectionReset, Kind::ConnectionAborted, Kind::BrokenPipe].contains(&error.kind())
}
