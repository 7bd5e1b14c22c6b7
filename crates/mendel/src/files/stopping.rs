//! A file system for tests that breaks at a chosen operation.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Disk, DurableWrite, FileSystem};

/// How it breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// The machine stops before the operation: neither it nor any later one does anything.
    Stop,
    /// The machine stops half-way through it: a write is short, a removal leaves files behind.
    StopHalfway,
    /// The operation fails, as on a full disk, and later ones work.
    FailOnce,
}

/// The real file system, up to a given operation.
pub(crate) struct Stopping {
    manner: Manner,
    stop_at: usize,
    done: AtomicUsize,
    unsynced: Mutex<Vec<PathBuf>>,
}

/// What is to become of an operation.
enum Fate {
    Done,
    Halfway,
    Undone,
}

/// Runs a scenario for each manner, stopping at each operation in turn until the scenario, which returns whether the
/// operation was reached, no longer reaches it. Returns how many runs that were.
pub(crate) fn at_every_operation(scenario: impl Fn(Manner, usize) -> bool) -> usize {
    let manners = [Manner::Stop, Manner::StopHalfway, Manner::FailOnce];
    manners.into_iter().map(|manner| (0..).take_while(|&operation| scenario(manner, operation)).count()).sum()
}

impl Stopping {
    pub(crate) fn new(manner: Manner, stop_at: usize) -> Stopping {
        Stopping { manner, stop_at, done: AtomicUsize::new(0), unsynced: Mutex::default() }
    }

    /// Whether the operation was reached at which to stop.
    pub(crate) fn reached(&self) -> bool {
        self.done.load(Ordering::SeqCst) > self.stop_at
    }

    /// Does what a power cut may do: files that were written but not synced become empty.
    pub(crate) fn lose_what_was_not_synced(&self) {
        for path in self.unsynced.lock().unwrap().iter().filter(|path| path.exists()) {
            fs::File::create(path).unwrap();
        }
    }

    fn fate(&self) -> Fate {
        let operation = self.done.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            _ if operation < self.stop_at => Fate::Done,
            Manner::FailOnce if operation > self.stop_at => Fate::Done,
            Manner::StopHalfway if operation == self.stop_at => Fate::Halfway,
            _ => Fate::Undone,
        }
    }

    fn whole(&self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.fate() {
            Fate::Done => operation(),
            Fate::Halfway | Fate::Undone => Err(stopped()),
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("stopped by the test")
}

impl FileSystem for Stopping {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.whole(|| Disk.create_dir(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableWrite + '_>> {
        self.whole(|| Ok(()))?;
        self.unsynced.lock().unwrap().push(path.into());
        Ok(Box::new(StoppingFile { files: self, path: path.into(), file: fs::File::create(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(|| Disk.rename(from, to))?;
        for path in self.unsynced.lock().unwrap().iter_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) };
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.whole(|| Disk.sync_dir(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.fate() {
            Fate::Done => Disk.remove_dir_all(path),
            Fate::Halfway => {
                fs::read_dir(path)?.take(1).try_for_each(|entry| fs::remove_file(entry?.path()))?;
                Err(stopped())
            }
            Fate::Undone => Err(stopped()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.whole(|| Disk.remove_file(path))
    }
}

struct StoppingFile<'a> {
    files: &'a Stopping,
    path: PathBuf,
    file: fs::File,
}

impl Write for StoppingFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.files.fate() {
            Fate::Done => self.file.write(bytes),
            Fate::Halfway => {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
                Err(stopped())
            }
            Fate::Undone => Err(stopped()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DurableWrite for StoppingFile<'_> {
    fn sync(&mut self) -> io::Result<()> {
        self.files.whole(|| self.file.sync_all())?;
        self.files.unsynced.lock().unwrap().retain(|path| *path != self.path);
        Ok(())
    }
}
