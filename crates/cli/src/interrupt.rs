//! Ctrl-C: the first asks the work to stop where it can be resumed, the second stops at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::MultiProgress;

use crate::display::say;
use crate::failure::INTERRUPTED;

/// Signals that come closer together than this are one: `timeout` and batch schedulers send theirs to the process and
/// to its group.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Gives the flag that the first Ctrl-C sets. Work that has nothing to save (`saves` is not set) ends at the first.
pub fn watch(saves: Arc<AtomicBool>, bars: MultiProgress) -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let mut first: Option<Instant> = None;
    ctrlc::set_handler(move || {
        let since_first = first.get_or_insert_with(Instant::now).elapsed();
        if flag.swap(true, Ordering::SeqCst) && since_first < ONE_SIGNAL {
            return;
        }
        if !saves.load(Ordering::SeqCst) || since_first >= ONE_SIGNAL {
            end_at_once();
        }
        bars.suspend(|| say("mendel: stopping after this step, to save the state; Ctrl-C again stops at once"));
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(interrupted)
}

/// Not as `process::exit` does, which lets libraries take apart what other threads of theirs are still using, such as the
/// GPU's compiler.
fn end_at_once() -> ! {
    // SAFETY: ends the process and touches no memory.
    unsafe { libc::_exit(INTERRUPTED.into()) }
}

/// The command line that goes on from the newest checkpoint: `line` with its own `--resume` (and what it
/// `resumed` from) replaced.
pub fn resuming(line: impl IntoIterator<Item = String>, resumed: Option<&Path>) -> String {
    let mut words = Vec::new();
    let mut line = line.into_iter().peekable();
    while let Some(word) = line.next() {
        if word == "--resume" {
            line.next_if(|value| resumed.is_some_and(|path| path.as_os_str() == value.as_str()));
        } else if !word.starts_with("--resume=") {
            words.push(quoted(&word));
        }
    }
    words.push("--resume".into());
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./,:=+@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resuming_line(line: &[&str], resumed: Option<&str>) -> String {
        resuming(line.iter().map(ToString::to_string), resumed.map(Path::new))
    }

    #[test]
    fn the_same_command_with_resume_goes_on() {
        let line = ["mendel", "train", "--query-prefix", "it's: ", "--seed", "1"];
        assert_eq!(resuming_line(&line, None), r"mendel train --query-prefix 'it'\''s: ' --seed 1 --resume");
    }

    #[test]
    fn an_earlier_resume_is_replaced_with_its_path() {
        assert_eq!(resuming_line(&["mendel", "train", "--resume", "--json"], None), "mendel train --json --resume");
        for line in [["mendel", "train", "--resume", "a/b"].as_slice(), &["mendel", "train", "--resume=a/b"]] {
            assert_eq!(resuming_line(line, Some("a/b")), "mendel train --resume");
        }
    }
}
