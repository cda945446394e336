//! `hn`: what a person types. It turns arguments into calls of the agent's socket and answers into text or JSON, and it
//! starts and stops `hnd`.
//!
//! Invariants: standard output carries the answer and nothing else (with `--json` one document, or one per line for
//! operations that take long); progress, errors and hints go to standard error; every failure has an exit code of
//! sysexits(3), one line that says what happened, and where possible one that says what to do.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod error;
mod examples;
mod hnd;
mod mesh;
mod mountpoint;
mod output;
mod passphrase;
mod phrase;
mod process;
mod volume_path;

use args::Cli;
use error::Failure;
use output::Output;

/// Whether a program reads, of a command line that does not parse.
fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    args.skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

fn main() -> ExitCode {
    // Words and passphrases pass through.
    hypernet_sdk::secret::no_core_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, everything else is a wrong use.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            let failure = Failure::usage(&error);
            if wants_json(std::env::args_os()) {
                Output::new(true).failure(&failure);
            } else {
                // In clap's own form, with colours and usage.
                let _ = error.print();
            }
            return ExitCode::from(failure.exit_code());
        }
    };
    let mut output = Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(hypernet_sdk::ErrorCode::System, format!("cannot start: {error}"));
            output.failure(&failure);
            return ExitCode::from(failure.exit_code());
        }
    };
    let result = runtime.block_on(commands::run(cli.command, &mut output));
    // A thread that waits for a directory which does not answer must not keep the program.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_wherever_it_is_said() {
        let said = |line: &str| wants_json(line.split(' ').map(OsString::from));
        assert!(said("hn --json frobnicate") && said("hn up --donate lots --json"));
        assert!(!said("hn frobnicate") && !said("hn join -- --json") && !said("--json"));
    }
}
