//! What is written where: answers to standard output, everything else to standard error.
//!
//! A reader that goes away (`hn peers | head`) ends the command quietly. Colours reach terminals only.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};
use hypernet_sdk::ErrorCode;
use serde::Serialize;

use crate::error::Failure;

pub(crate) mod bar;
pub(crate) mod patch;
pub(crate) mod qr;
pub(crate) mod table;
pub(crate) mod words;

/// What went wrong.
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What to do.
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// What needs a look.
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Where a command writes.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line for a person.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        match self.json {
            true => Ok(()),
            false => checked(writeln!(anstream::stdout().lock(), "{text}")),
        }
    }

    /// A line for a program.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(ErrorCode::Internal, format!("cannot write the answer as JSON: {error}")))?;
        let mut stdout = io::stdout().lock();
        checked(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))
    }

    /// Bytes for whoever reads, such as a shell's completions; not with `--json`.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        checked(io::stdout().lock().write_all(bytes))
    }

    /// What has changed in a file, byte by byte as `patch` is to read it; a terminal gets colours, and nothing that controls it.
    pub(crate) fn patch(&mut self, patch: &patch::Patch<'_>) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let colours = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let bytes = patch.written(colours, stdout.is_terminal());
        checked(stdout.write_all(&bytes))
    }

    /// What happens, beside the answer.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        if !self.json {
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        }
    }

    /// A question; the answer is typed behind it.
    pub(crate) fn prompt(&self, text: impl fmt::Display) {
        let mut stderr = anstream::stderr().lock();
        let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
    }

    /// What needs a look.
    pub(crate) fn warning(&self, text: impl fmt::Display) {
        let _ = writeln!(anstream::stderr().lock(), "{WARNING}warning{WARNING:#}: {text}");
    }

    /// The end of a command that failed. With `--json` standard output ends with it, too.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if failure.silent {
            return;
        }
        if self.json {
            let _ = self.json(&serde_json::json!({ "error": failure.to_api() }));
        }
        let mut stderr = anstream::stderr().lock();
        let _ = writeln!(stderr, "{ERROR}error{ERROR:#}: {}", one_line(&failure.message));
        if let Some(hint) = &failure.hint {
            let _ = writeln!(stderr, "{HINT}hint{HINT:#}: {}", one_line(hint));
        }
    }
}

/// One line, whatever a file's name contains.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).filter(|part| !part.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join("; ")
}

fn checked(written: io::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure { silent: true, ..Failure::new(ErrorCode::Io, "nobody reads the output") },
        _ => Failure::io("cannot write to standard output", &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(one_line("a\nb\r\n\n  c"), "a; b; c");
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error_to_talk_about() {
        let failure = checked(Err(io::ErrorKind::BrokenPipe.into())).unwrap_err();
        assert!(failure.silent);
        assert!(!checked(Err(io::ErrorKind::StorageFull.into())).unwrap_err().silent);
    }
}
