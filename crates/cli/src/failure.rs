//! How a failure is told, and the exit code that it gives.

use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;
use mendel::settings::InvalidSetting;

use crate::display::say;

/// The work failed.
const FAILED: u8 = 1;
/// The command line or the settings are wrong, nothing was started.
const WRONG_USAGE: u8 = 2;
/// Ended by the user.
pub const INTERRUPTED: u8 = 130;

/// The command line asks for something that does not exist.
#[derive(Debug)]
pub struct WrongUsage(String);

impl WrongUsage {
    pub fn new(message: impl Into<String>) -> Self {
        WrongUsage(message.into())
    }
}

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Tells on one line what failed; with `verbose`, every cause on a line of its own.
pub fn report(error: &anyhow::Error, verbose: bool) -> ExitCode {
    if verbose {
        say(&format!("mendel: error: {}", one_line(&error.to_string())));
        for cause in error.chain().skip(1) {
            say(&format!("  caused by: {}", one_line(&cause.to_string())));
        }
    } else {
        say(&format!("mendel: error: {}", one_line(&with_root_cause(error))));
    }
    let wrong_usage = error.chain().any(|cause| cause.is::<WrongUsage>() || cause.is::<InvalidSetting>());
    ExitCode::from(if wrong_usage { WRONG_USAGE } else { FAILED })
}

/// What failed and, where the message does not say it already, why in the end.
fn with_root_cause(error: &anyhow::Error) -> String {
    let message = error.to_string();
    let root = error.root_cause().to_string();
    if message.contains(&root) { message } else { format!("{message}: {root}") }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What clap could not read, on one line; or the help or version that it was asked for.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed the pipe has read enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(WRONG_USAGE)
        }
        _ => {
            say(&format!("mendel: {}", in_words(&usage_line(&error.render().to_string()))));
            ExitCode::from(WRONG_USAGE)
        }
    }
}

/// clap's paragraphs up to the usage, as clauses of one line.
fn usage_line(rendered: &str) -> String {
    let end = rendered.find("\nUsage:").or_else(|| rendered.find("\nFor more information")).unwrap_or(rendered.len());
    let mut line = String::new();
    for part in rendered[..end].lines().map(str::trim).filter(|part| !part.is_empty()) {
        let separator = match line.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        line.push_str(separator);
        line.push_str(part);
    }
    line
}

/// Rust's words on numbers as a user would say them.
fn in_words(line: &str) -> String {
    line.replace("invalid digit found in string", "it must be a whole number of 0 or more")
        .replace("cannot parse integer from empty string", "it must be a whole number of 0 or more")
        .replace("invalid float literal", "it must be a number")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_line_says_what_failed_and_why_once() {
        let error = anyhow!("no such file").context("opening it").context("cannot read pairs.jsonl");
        assert_eq!(with_root_cause(&error), "cannot read pairs.jsonl: no such file");
        let error = anyhow!("no such file").context("cannot read pairs.jsonl: no such file");
        assert_eq!(with_root_cause(&error), "cannot read pairs.jsonl: no such file");
    }

    #[test]
    fn a_message_of_many_lines_is_told_on_one() {
        assert_eq!(one_line("first\n\n  second\n"), "first second");
    }

    #[test]
    fn what_clap_says_in_paragraphs_is_told_on_one_line() {
        let rendered = "error: unexpected argument '--a' found\n\n  tip: a similar argument exists: '--b'\n\n\
                        Usage: mendel info\n\nFor more information, try '--help'.\n";
        let expected = "error: unexpected argument '--a' found; tip: a similar argument exists: '--b'";
        assert_eq!(usage_line(rendered), expected);
    }
}
