//! What went wrong, for a person: one line, what to do about it, and a kind by which the CLI picks its exit code.

use std::fmt;

/// Where it went wrong, by what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An argument is wrong.
    Usage,
    /// A file is damaged or of another version.
    Data,
    /// An input file cannot be read.
    NoInput,
    /// The mesh or the agent cannot be reached.
    Unavailable,
    /// Something cannot be created.
    CantCreate,
    /// A disk failed.
    Io,
    /// Trying again later may help.
    TryAgain,
    /// Not allowed.
    Permission,
    /// The set-up is not complete.
    Config,
    /// The operating system refused.
    System,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
