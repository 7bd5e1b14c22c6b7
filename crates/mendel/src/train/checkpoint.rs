//! Checkpoints that a kill cannot damage.
//!
//! A checkpoint is a folder `step-000500` of files and a manifest with their sizes and checksums. It is written
//! under another name beside its place and renamed when all of it is on the disk, so that a folder of that name is
//! always whole, and the older checkpoints go only after that.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::files::{Disk, FileError, FileSystem, create_dir_durably};
use manifest::{FORMAT, MANIFEST, Manifest, ManifestEntry, hex};

mod manifest;
#[cfg(test)]
mod tests;

pub use manifest::Damage;

/// The checkpoints of one training run: `checkpoints/<arm>-seed<k>/`. One process at a time may save to it.
pub struct CheckpointStore {
    dir: PathBuf,
    keep: usize,
    files: Arc<dyn FileSystem>,
}

/// What a file of a checkpoint is to hold.
pub enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What this function writes, which saves a copy of large data. It is called once.
    Writer(&'a dyn Fn(&mut dyn Write) -> io::Result<()>),
}

/// A checkpoint that was saved.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Older checkpoints that should have been removed but could not be. The next save tries again.
    pub not_removed: Vec<FileError>,
}

/// What [`CheckpointStore::newest`] found.
#[derive(Debug)]
pub struct Newest {
    /// The newest undamaged checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// The newer ones that were passed over, newest first.
    pub damaged: Vec<Damaged>,
}

/// A checkpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("checkpoint '{}' is damaged: {reason}", path.display())]
pub struct Damaged {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Damage,
}

/// A checkpoint whose every file has been verified.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

/// Why a checkpoint could not be saved or opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum CheckpointError {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing at the path given.
    #[error("there is no checkpoint '{}'; name an existing step folder, or none to take the newest", path.display())]
    Missing { path: PathBuf },
    /// What is at the path given was never a checkpoint, such as the output folder.
    #[error(
        "'{}' is no checkpoint, which is a folder step-NNNNNN below the output folder's checkpoints/; \
         name such a folder, or none to take the newest",
        path.display()
    )]
    NotACheckpoint { path: PathBuf },
    /// The checkpoint at the path given cannot be used.
    #[error("{0}; name another step folder, or none to take the newest undamaged one")]
    Damaged(#[from] Damaged),
    /// The checkpoint is whole but was never given this file.
    #[error("checkpoint '{}' holds no '{name}'; it was written by another version of this program", path.display())]
    NoSuchFile { path: PathBuf, name: String },
    /// A name under which nothing can be saved.
    #[error("'{name}' cannot be the name of a file of a checkpoint: {reason}")]
    BadName { name: String, reason: &'static str },
}

impl CheckpointStore {
    /// The checkpoints in `dir`, which the first save creates. Saving keeps the `keep` newest ones, at least one.
    pub fn new(dir: impl Into<PathBuf>, keep: usize) -> CheckpointStore {
        CheckpointStore { dir: dir.into(), keep: keep.max(1), files: Arc::new(Disk) }
    }

    /// Saves the checkpoint of a step under the given names, replacing one of the same step. When it returns, it is on
    /// the disk; when the machine stops at any moment before, the checkpoints are those of before.
    ///
    /// Older checkpoints are then removed but for the `keep` newest, this one included. Those of later steps, which a
    /// run leaves that was resumed from an earlier one, are let be.
    ///
    /// # Errors
    /// When something cannot be written, or a name is no plain file name.
    pub fn save(&self, step: u64, contents: &[(&str, Content<'_>)]) -> Result<Saved, CheckpointError> {
        check_names(contents)?;
        create_dir_durably(&*self.files, &self.dir)?;
        self.clear_leftovers()?;
        let temporary = self.dir.join(temporary_name(step));
        let path = self.dir.join(folder_name(step));
        let written = self.write_folder(&temporary, step, contents).and_then(|()| self.put_in_place(&temporary, step));
        if let Err(error) = written {
            // A full disk should not stay full of what failed. If this fails too, the next save removes it.
            let _ = self.files.remove_dir_all(&temporary);
            return Err(error.into());
        }
        Ok(Saved { path, not_removed: self.remove_old(step) })
    }

    /// Removes every checkpoint, for a run that begins anew in the same place; returns how many there were.
    ///
    /// # Errors
    /// When the folder of checkpoints is there but cannot be read, or a checkpoint cannot be removed.
    pub fn clear(&self) -> Result<usize, CheckpointError> {
        self.clear_leftovers()?;
        let entries = self.entries()?;
        for entry in &entries {
            if let Entry::Checkpoint(step) = entry {
                self.remove(&self.dir.join(folder_name(*step)))?;
            }
        }
        Ok(entries.len())
    }

    /// The newest checkpoint that is undamaged, and the damaged ones passed over to find it. Reads all of its files.
    ///
    /// # Errors
    /// When the folder of checkpoints is there but cannot be read. What cannot be read in a checkpoint is damage.
    pub fn newest(&self) -> Result<Newest, CheckpointError> {
        let entries = self.entries()?;
        let is_whole = |step| entries.iter().any(|entry| matches!(entry, Entry::Checkpoint(other) if *other == step));
        let mut candidates: Vec<(u64, String)> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Checkpoint(step) => Some((*step, folder_name(*step))),
                // A kill between the two renames of a replacement leaves the old one under this name alone.
                Entry::Replaced(step) if !is_whole(*step) => Some((*step, replaced_name(*step))),
                Entry::Replaced(_) | Entry::Leftover(_) => None,
            })
            .collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let mut damaged = Vec::new();
        for (step, name) in candidates {
            match Checkpoint::verify(self.dir.join(name), Some(step)) {
                Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), damaged }),
                Err(found) => damaged.push(found),
            }
        }
        Ok(Newest { checkpoint: None, damaged })
    }

    fn write_folder(&self, path: &Path, step: u64, contents: &[(&str, Content<'_>)]) -> Result<(), FileError> {
        self.files.create_dir(path).map_err(FileError::when("create the folder", path))?;
        let mut files = Vec::with_capacity(contents.len());
        for (name, content) in contents {
            files.push(self.write_file(&path.join(name), name, content)?);
        }
        let manifest = Manifest { format: FORMAT, step, files };
        self.write_file(&path.join(MANIFEST), MANIFEST, &Content::Bytes(&manifest.to_bytes()))?;
        self.sync(path)
    }

    fn write_file(&self, path: &Path, name: &str, content: &Content<'_>) -> Result<ManifestEntry, FileError> {
        let write = || {
            let mut file = self.files.create(path)?;
            // Many tensors are small; the disk gets them a mebibyte at a time.
            let mut hashing =
                Hashing { inner: BufWriter::with_capacity(1 << 20, &mut file), hash: Sha256::new(), size: 0 };
            match content {
                Content::Bytes(bytes) => hashing.write_all(bytes)?,
                Content::Writer(write) => write(&mut hashing)?,
            }
            hashing.flush()?;
            let entry = hashing.into_entry(name);
            file.sync()?;
            Ok(entry)
        };
        write().map_err(FileError::when("write", path))
    }

    /// Gives the finished folder its name. A folder cannot replace another in one step, so the old one of the same step
    /// goes aside first; until the new one is in place, [`CheckpointStore::newest`] finds it there.
    fn put_in_place(&self, temporary: &Path, step: u64) -> Result<(), FileError> {
        let path = self.dir.join(folder_name(step));
        let aside = self.dir.join(replaced_name(step));
        let replaces = path.exists();
        if replaces {
            self.files.rename(&path, &aside).map_err(FileError::when("rename", &path))?;
        }
        self.files.rename(temporary, &path).map_err(FileError::when("rename", temporary))?;
        self.sync(&self.dir)
    }

    /// Removes what earlier saves left: unfinished folders, and replaced ones whose replacement is in place. A replaced
    /// one whose replacement never came gets its name back.
    fn clear_leftovers(&self) -> Result<(), FileError> {
        for entry in self.entries()? {
            match entry {
                Entry::Checkpoint(_) => {}
                Entry::Leftover(name) => self.remove(&self.dir.join(name))?,
                Entry::Replaced(step) => {
                    let (aside, path) = (self.dir.join(replaced_name(step)), self.dir.join(folder_name(step)));
                    if path.exists() {
                        self.remove(&aside)?;
                    } else {
                        self.files.rename(&aside, &path).map_err(FileError::when("rename", &aside))?;
                        self.sync(&self.dir)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes what the checkpoint of `step`, now complete, has made superfluous. Returns what could not be removed: no
    /// reason to say that the save failed.
    fn remove_old(&self, step: u64) -> Vec<FileError> {
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => return vec![error],
        };
        let mut older = Vec::new();
        let mut not_removed = Vec::new();
        for entry in entries {
            match entry {
                Entry::Checkpoint(other) if other < step => older.push(other),
                Entry::Replaced(other) => not_removed.extend(self.remove(&self.dir.join(replaced_name(other))).err()),
                Entry::Checkpoint(_) | Entry::Leftover(_) => {}
            }
        }
        older.sort_unstable_by(|a, b| b.cmp(a));
        for &old in older.iter().skip(self.keep - 1) {
            let (path, temporary) = (self.dir.join(folder_name(old)), self.dir.join(temporary_name(old)));
            // Under its own name, one that is half removed would look like one that is damaged.
            let renamed = self.files.rename(&path, &temporary).map_err(FileError::when("remove", &path));
            not_removed.extend(renamed.and_then(|()| self.remove(&temporary)).err());
        }
        not_removed
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.files.remove_dir_all(path).map_err(FileError::when("remove", path))
    }

    fn sync(&self, path: &Path) -> Result<(), FileError> {
        self.files.sync_dir(path).map_err(FileError::when("write", path))
    }

    fn entries(&self) -> Result<Vec<Entry>, FileError> {
        let read = || -> io::Result<Vec<Entry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                entries.extend(entry?.file_name().to_str().and_then(Entry::of));
            }
            Ok(entries)
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result.map_err(FileError::when("read", &self.dir)),
        }
    }
}

/// What a name in the folder of checkpoints means.
enum Entry {
    /// The checkpoint of a step.
    Checkpoint(u64),
    /// One that is being replaced by another of the same step.
    Replaced(u64),
    /// One that was never finished, or is half removed.
    Leftover(String),
}

impl Entry {
    fn of(name: &str) -> Option<Entry> {
        if let Some(step) = step_of(name) {
            return Some(Entry::Checkpoint(step));
        }
        let hidden = name.strip_prefix('.')?;
        if let Some(step) = hidden.strip_suffix(REPLACED).and_then(step_of) {
            return Some(Entry::Replaced(step));
        }
        let (folder, _) = hidden.split_once(TEMPORARY)?;
        step_of(folder).map(|_| Entry::Leftover(name.into()))
    }
}

const REPLACED: &str = ".replaced";
const TEMPORARY: &str = ".tmp-";

fn folder_name(step: u64) -> String {
    format!("step-{step:06}")
}

fn replaced_name(step: u64) -> String {
    format!(".{}{REPLACED}", folder_name(step))
}

fn temporary_name(step: u64) -> String {
    format!(".{}{TEMPORARY}{}", folder_name(step), std::process::id())
}

/// The step of a folder's name, if it is the name of a checkpoint.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

fn check_names(contents: &[(&str, Content<'_>)]) -> Result<(), CheckpointError> {
    for (index, (name, _)) in contents.iter().enumerate() {
        let reason = if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            "it is not a plain file name"
        } else if *name == MANIFEST {
            "that is the list of the files"
        } else if contents[..index].iter().any(|(other, _)| other == name) {
            "another file has it"
        } else {
            continue;
        };
        return Err(CheckpointError::BadName { name: (*name).into(), reason });
    }
    Ok(())
}

/// Passes on what is written, and keeps its size and checksum.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn into_entry(self, name: &str) -> ManifestEntry {
        ManifestEntry { name: name.into(), size: self.size, sha256: hex(&self.hash.finalize()) }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Checkpoint {
    /// Opens a checkpoint by its folder's path and verifies all of its files.
    ///
    /// # Errors
    /// When there is none, or it is damaged: the message names the file, and both sizes or checksums.
    pub fn open(path: impl Into<PathBuf>) -> Result<Checkpoint, CheckpointError> {
        let path = path.into();
        if !path.exists() {
            return Err(CheckpointError::Missing { path });
        }
        let step = path.file_name().and_then(|name| step_of(name.to_str()?));
        if step.is_none() && !path.join(MANIFEST).exists() {
            return Err(CheckpointError::NotACheckpoint { path });
        }
        Ok(Checkpoint::verify(path, step)?)
    }

    /// `step` is the one that the folder's name gives, if it gives one.
    fn verify(path: PathBuf, step: Option<u64>) -> Result<Checkpoint, Damaged> {
        match Manifest::read_verified(&path, step) {
            Ok(manifest) => Ok(Checkpoint { path, manifest }),
            Err(reason) => Err(Damaged { path, reason }),
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The step it was saved at.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// The names of its files, in the order in which they were saved.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.files.iter().map(|file| file.name.as_str())
    }

    /// The content of one of its files, verified once more.
    ///
    /// # Errors
    /// When the checkpoint holds no such file, or the file has been changed or removed since it was opened.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let Some(entry) = self.manifest.files.iter().find(|file| file.name == name) else {
            return Err(CheckpointError::NoSuchFile { path: self.path.clone(), name: name.into() });
        };
        let path = self.path.join(name);
        let bytes = fs::read(&path).map_err(FileError::when("read", &path))?;
        match entry.check(bytes.len() as u64, &hex(&Sha256::digest(&bytes))) {
            Ok(()) => Ok(bytes),
            Err(reason) => Err(Damaged { path: self.path.clone(), reason }.into()),
        }
    }
}
