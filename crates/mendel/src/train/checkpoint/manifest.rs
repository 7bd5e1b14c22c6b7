//! The list of a checkpoint's files, by which it is verified.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name of the list. It is written last.
pub(super) const MANIFEST: &str = "manifest.json";

/// The version of the layout of a checkpoint that this program writes and reads.
pub(super) const FORMAT: u32 = 1;

/// What `manifest.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) step: u64,
    pub(super) files: Vec<ManifestEntry>,
}

/// The part of a manifest that all versions have.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// A file as it was written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestEntry {
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
    /// 64 hexadecimal digits.
    pub(super) sha256: String,
}

/// What can be wrong with a checkpoint.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Damage {
    /// It has no manifest, which is written last.
    #[error("it has no manifest.json, so it was never completed")]
    NoManifest,
    /// The manifest cannot be read, or is no manifest.
    #[error("manifest.json cannot be read: {0}")]
    BadManifest(String),
    /// The manifest is of another version.
    #[error("manifest.json has format {found}, and this program reads format {FORMAT}")]
    OtherFormat { found: u32 },
    /// The manifest says that it belongs to another step than the folder's name says.
    #[error("manifest.json is of step {found}, which is not the folder's")]
    OtherStep { found: u64 },
    /// A file of the manifest is not there.
    #[error("the file '{name}' is missing")]
    Missing { name: String },
    /// A file or folder is there that is not in the manifest.
    #[error("'{name}' is not one of its files")]
    Unexpected { name: String },
    /// A file has another size than when it was written.
    #[error("the file '{name}' has {found} bytes and was written with {expected}")]
    Size { name: String, found: u64, expected: u64 },
    /// A file's content is not what was written.
    #[error("the file '{name}' has SHA-256 {found} and was written with {expected}")]
    Content { name: String, found: String, expected: String },
    /// A file cannot be read.
    #[error("the file '{name}' cannot be read: {reason}")]
    Unreadable { name: String, reason: String },
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // One text for one content: `read` compares bytes.
        format!("{:#}\n", serde_json::json!(self)).into_bytes()
    }

    /// Reads the manifest of the checkpoint in a folder and verifies all files by it. `step` is the step in the folder's
    /// name, if it has one.
    pub(super) fn read_verified(folder: &Path, step: Option<u64>) -> Result<Manifest, Damage> {
        let manifest = Manifest::read(folder)?;
        if step.is_some_and(|step| step != manifest.step) {
            return Err(Damage::OtherStep { found: manifest.step });
        }
        manifest.check_names(folder)?;
        let damage = manifest.files.par_iter().find_map_first(|file| file.verify(&folder.join(&file.name)).err());
        damage.map_or(Ok(manifest), Err)
    }

    fn read(folder: &Path) -> Result<Manifest, Damage> {
        let bytes = fs::read(folder.join(MANIFEST)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Damage::NoManifest,
            _ => Damage::BadManifest(error.to_string()),
        })?;
        let unreadable = |error: serde_json::Error| Damage::BadManifest(error.to_string());
        let Version { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if format != FORMAT {
            return Err(Damage::OtherFormat { found: format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(unreadable)?;
        // What the verification does not use, such as a space, would otherwise be the one place to change unseen.
        if manifest.to_bytes() != bytes {
            return Err(Damage::BadManifest("it is not as it was written".into()));
        }
        Ok(manifest)
    }

    fn check_names(&self, folder: &Path) -> Result<(), Damage> {
        let unreadable = |error: io::Error| Damage::Unreadable { name: ".".into(), reason: error.to_string() };
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            found.insert(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
        }
        let expected: BTreeSet<String> =
            self.files.iter().map(|file| file.name.clone()).chain([MANIFEST.into()]).collect();
        if let Some(name) = expected.difference(&found).next() {
            return Err(Damage::Missing { name: name.clone() });
        }
        match found.difference(&expected).next() {
            Some(name) => Err(Damage::Unexpected { name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl ManifestEntry {
    fn verify(&self, path: &Path) -> Result<(), Damage> {
        let unreadable = |error: io::Error| Damage::Unreadable { name: self.name.clone(), reason: error.to_string() };
        let (size, sha256) = File::open(path).and_then(size_and_sha256).map_err(unreadable)?;
        self.check(size, &sha256)
    }

    /// Whether a file of this size and checksum is the one that was written.
    pub(super) fn check(&self, size: u64, sha256: &str) -> Result<(), Damage> {
        let name = self.name.clone();
        if size != self.size {
            return Err(Damage::Size { name, found: size, expected: self.size });
        }
        if sha256 != self.sha256 {
            return Err(Damage::Content { name, found: sha256.into(), expected: self.sha256.clone() });
        }
        Ok(())
    }
}

fn size_and_sha256(mut file: impl Read) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(&hash.finalize()))),
            Ok(read) => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A checksum as a manifest has it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
