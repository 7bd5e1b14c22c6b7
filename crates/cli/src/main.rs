//! `mendel`: arguments, progress and exit codes around the library, which does the work.

mod arguments;
mod commands;
mod display;
mod failure;
mod interrupt;
mod logging;
mod nearest;
mod settings_flags;
mod settings_layers;

use std::env;
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use indicatif::MultiProgress;
use mendel::Settings;

use arguments::{Arguments, Command, TrainingArguments};
use commands::{Outcome, Run};
use display::{Display, print_result, say};

fn main() -> ExitCode {
    keep_silent_about_panics_that_become_errors();
    let arguments = match Arguments::read(env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return failure::report_usage(&error),
    };
    match perform(&arguments) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted { saved }) => {
            tell_interrupted(&arguments.command, saved);
            ExitCode::from(failure::INTERRUPTED)
        }
        Err(error) => failure::report(&error, arguments.talk.verbose > 0),
    }
}

fn keep_silent_about_panics_that_become_errors() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !mendel::data::panic_becomes_error() {
            tell(panic);
        }
    }));
}

fn perform(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let bars = MultiProgress::new();
    logging::start(arguments.talk.verbose, bars.clone())?;
    let session = Session { quiet: arguments.talk.quiet, bars, saves: Arc::default() };
    match &arguments.command {
        Command::Compare(arguments) => session.train(arguments, arguments.settings()?, commands::compare::run),
        Command::Train(arguments) => session.train(arguments, arguments.settings_of_one_arm()?, commands::train::run),
        Command::Eval(arguments) => {
            let settings = arguments.settings(&mut session.display())?;
            session.run(&settings, |run| commands::eval::run(arguments, run))
        }
        Command::Embed(arguments) => {
            let settings = arguments.settings(&mut session.display())?;
            session.run(&settings, |run| commands::embed::run(arguments, run))
        }
        Command::Bench(arguments) => session.run(&arguments.settings()?, |run| commands::bench::run(arguments, run)),
        Command::Selftest(arguments) => {
            session.run(&arguments.settings()?, |run| commands::selftest::run(arguments, run))
        }
        Command::Data(command) => commands::data::run(command, &mut session.display()),
        Command::Sweep(arguments) => {
            let plan = arguments.plan()?;
            session.run(&plan.whole, |run| commands::sweep::run(arguments, &plan, run))
        }
        Command::Report(arguments) => commands::report::run(arguments),
        Command::Info(arguments) => commands::info::run(arguments),
    }
}

/// What every command has in common.
struct Session {
    quiet: bool,
    bars: MultiProgress,
    /// Whether there is a state that an interruption saves.
    saves: Arc<AtomicBool>,
}

impl Session {
    fn display(&self) -> Display {
        Display::new(self.quiet, self.bars.clone(), Arc::clone(&self.saves))
    }

    fn train(
        &self,
        arguments: &TrainingArguments,
        settings: Settings,
        command: fn(&TrainingArguments, &mut Run<'_>) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Outcome> {
        if arguments.print_config {
            print_result(&settings.to_toml()?)?;
            return Ok(Outcome::Done);
        }
        self.run(&settings, |run| command(arguments, run))
    }

    /// Sets up what `command` runs in.
    fn run(
        &self,
        settings: &Settings,
        command: impl FnOnce(&mut Run<'_>) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Outcome> {
        use_threads(settings.threads)?;
        let interrupted = interrupt::watch(Arc::clone(&self.saves), self.bars.clone())?;
        command(&mut Run { settings, observer: &mut self.display(), interrupted })
    }
}

/// Starts the threads that the library works on; 0 leaves their number to the machine.
fn use_threads(threads: usize) -> anyhow::Result<()> {
    if threads == 0 {
        return Ok(());
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("cannot start {threads} threads"))
}

fn tell_interrupted(command: &Command, saved: bool) {
    if !saved {
        return say("mendel: interrupted before there was a state to save");
    }
    let resumed = match command {
        Command::Compare(arguments) | Command::Train(arguments) => arguments.resume.as_ref(),
        _ => None,
    };
    let resumed = resumed.and_then(|path| path.as_deref());
    let line = env::args_os().map(|word| word.to_string_lossy().into_owned());
    say(&format!(
        "mendel: interrupted, the state is saved; this goes on from it: {}",
        interrupt::resuming(line, resumed)
    ));
}
