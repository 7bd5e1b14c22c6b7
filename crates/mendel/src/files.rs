//! Writing files so that a reader, or a run that was killed, never sees half of one; and mapping them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

/// Bytes.
const HASHED_AT_ONCE: usize = 1 << 20;

#[cfg(test)]
pub(crate) mod stopping;

/// The bytes of a file that is not written to in place while it is in use: none of ours is, nor are the Hub's.
pub(crate) fn mapped(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: files are written under another name and get theirs when they are complete. One that another program writes to
    // in place gives other numbers; one that it cuts short, or that cannot be read, ends this program with a signal, as any
    // mapped file would.
    unsafe { Mmap::map(&file) }
}

/// A file or folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} '{}': {error}{}", path.display(), advice(error))]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    // Not the error's source: its text is part of the message.
    error: io::Error,
}

impl FileError {
    /// For `map_err`: `doing` is "write", "read", "rename", …
    pub(crate) fn when(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |error| FileError { doing, path: path.into(), error }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some space there, or choose another output folder",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; make its folder writable, or choose another output folder"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "; move what is in its place out of the way, or choose another output folder"
        }
        _ => "",
    }
}

/// Fails early where a folder, which need not exist, could not be written to later. Leaves nothing behind.
///
/// # Errors
/// When nothing can be created there.
pub fn check_writable(folder: &Path) -> Result<(), FileError> {
    let existing = folder.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let probe = existing.unwrap_or(Path::new(".")).join(format!(".mendel-{}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).map_err(FileError::when("write to", folder))
}

/// SHA-256 of a file's content. `advance` is told now and then how many bytes are done.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn sha256(path: &Path, mut advance: impl FnMut(u64)) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut hash, mut block, mut done) = (Sha256::new(), vec![0; HASHED_AT_ONCE], 0);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(hash.finalize().to_vec());
        }
        hash.update(&block[..read]);
        done += read as u64;
        advance(done);
    }
}

/// The changes that safe writing makes to a disk. There is one real implementation, [`Disk`]; the tests have another
/// that stops at any one of them.
pub(crate) trait FileSystem: Send + Sync {
    /// Creates one folder, whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file, or empties it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableWrite + '_>>;
    /// Moves a file or folder within a file system; a file replaces one that has the name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns once the entries of a folder will survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
}

/// A file being written.
pub(crate) trait DurableWrite: Write {
    /// Returns once what was written will survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

impl DurableWrite for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The file system of the machine.
pub(crate) struct Disk;

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableWrite + '_>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Only Unix lets a folder be opened for this; elsewhere its entries are the file system's business.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Writes a file whole: whenever the machine stops, the file is afterwards as it was before, or holds `bytes`. Creates
/// the folders above it.
///
/// # Errors
/// When a folder or the file cannot be written; a file that was there is then as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomically_on(&Disk, path, bytes)
}

pub(crate) fn write_atomically_on(files: &dyn FileSystem, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = folder_of(path);
    create_dir_durably(files, folder)?;
    // The same name every time, so that what a kill leaves is used up by the next write.
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = folder.join(name);
    let write = || {
        let mut file = files.create(&temporary)?;
        file.write_all(bytes)?;
        file.sync()?;
        drop(file);
        files.rename(&temporary, path)
    };
    write().map_err(|error| {
        // A full disk should not stay full of what failed. If this fails too, the first error is the one to report.
        let _ = files.remove_file(&temporary);
        FileError::when("write", path)(error)
    })?;
    files.sync_dir(folder).map_err(FileError::when("write", folder))
}

/// Creates a folder, and those above it that are missing, so that they survive a power cut.
pub(crate) fn create_dir_durably(files: &dyn FileSystem, path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = folder_of(path);
    if parent != path {
        create_dir_durably(files, parent)?;
    }
    match files.create_dir(path) {
        // Another thread may have been quicker.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(FileError::when("create the folder", path)),
    }?;
    files.sync_dir(parent).map_err(FileError::when("write", parent))
}

/// The folder that a path is in; of a bare name, the current one.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::stopping::{Stopping, at_every_operation};
    use super::*;

    #[test]
    fn wherever_the_machine_stops_the_file_is_the_old_or_the_new_one() {
        let outcomes = at_every_operation(|manner, operation| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("results.json");
            write_atomically(&path, b"old").unwrap();
            let files = Stopping::new(manner, operation);
            let written = write_atomically_on(&files, &path, b"new, and longer").is_ok();
            files.lose_what_was_not_synced();
            let found = fs::read(&path).unwrap();
            assert!(found == b"old" || found == b"new, and longer", "{manner:?} at {operation}: {found:?}");
            assert!(!written || found == b"new, and longer", "{manner:?} at {operation}");
            write_atomically(&path, b"newer").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"newer");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{manner:?} at {operation}");
            files.reached()
        });
        assert!(outcomes > 10);
    }

    #[test]
    fn missing_folders_are_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.json");
        write_atomically(&path, b"1").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"1");
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_atomically(&file, b"").unwrap();
        let message = write_atomically(&file.join("results.json"), b"").unwrap_err().to_string();
        assert!(message.starts_with("cannot create the folder '") && message.contains("/file'"), "{message}");
        assert!(message.ends_with("or choose another output folder"), "{message}");
        let full = FileError::when("write", Path::new("x"))(ErrorKind::StorageFull.into());
        assert!(full.to_string().contains("free some space"), "{full}");
        let read_only = FileError::when("write", Path::new("x"))(ErrorKind::ReadOnlyFilesystem.into());
        assert!(read_only.to_string().contains("make its folder writable"), "{read_only}");
    }
}
