//! Failures as a person meets them: one line, a hint, an exit code. The kinds and hints of everything that goes wrong on
//! this side of the socket are decided here and nowhere else.

use std::fmt;
use std::io;

use hypernet_sdk::{ApiError, Error, ErrorCode};

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The reader of standard output went away: there is nobody to tell.
    pub(crate) silent: bool,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, silent: false }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A command line that clap refuses. Its text is a paragraph for what is wrong, then tips, then the usage.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        use clap::error::ErrorKind;
        let text = error.render().to_string();
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self::new(ErrorCode::Usage, "no command was given").hint("`hn --help` shows what there is");
        }
        let mut parts = text.split("\n\n").map(|part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            words.join(" ")
        });
        let what = parts.next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(&what);
        let tip = parts.find_map(|part| part.strip_prefix("tip: ").map(str::to_owned));
        Self::new(ErrorCode::Usage, what)
            .hint(tip.unwrap_or_else(|| "`--help` shows what the command takes".to_owned()))
    }

    /// The number that scripts see, of sysexits(3).
    pub(crate) fn exit_code(&self) -> u8 {
        match self.code {
            ErrorCode::Usage => 64,
            ErrorCode::Data => 65,
            ErrorCode::NoInput => 66,
            ErrorCode::Unavailable => 69,
            ErrorCode::Internal => 70,
            ErrorCode::System => 71,
            ErrorCode::CantCreate => 73,
            ErrorCode::Io => 74,
            ErrorCode::TryAgain => 75,
            ErrorCode::Permission => 77,
            ErrorCode::Config => 78,
        }
    }

    /// A failure of the operating system while doing something to something.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorCode::Permission,
            io::ErrorKind::NotFound => ErrorCode::NoInput,
            _ => ErrorCode::Io,
        };
        let failure = Self::new(code, format!("{what}: {error}"));
        match error.kind() {
            io::ErrorKind::StorageFull => failure.hint("the disk is full: make room and try again; nothing was lost"),
            _ => failure,
        }
    }

    /// As JSON tells it.
    pub(crate) fn to_api(&self) -> ApiError {
        ApiError { code: self.code, message: self.message.clone(), hint: self.hint.clone() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { code: error.code, message: error.message, hint: error.hint, silent: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::Api(inner) => inner.hint.clone(),
            Error::NotRunning { set_up: true, .. } => Some("start it with `hn up`".to_owned()),
            Error::NotRunning { set_up: false, .. } => {
                Some("begin with `hn init`, or `hn recover`; HN_HOME chooses the directory".to_owned())
            }
            Error::NotAllowed { .. } => Some("it belongs to another user: set HN_HOME, or become that user".to_owned()),
            Error::SocketPathTooLong(_) => Some("set HN_HOME to a shorter path".to_owned()),
            Error::Timeout { .. } => {
                Some("try again; `hnd.log` in the agent's directory says what it is doing".to_owned())
            }
            Error::Interrupted { .. } => Some(
                "nothing is lost: start it again with `hn up`; hnd.log in its directory says why it stopped".to_owned(),
            ),
            Error::Protocol { .. } => Some("update `hn` and `hnd` together, then `hn down` and `hn up`".to_owned()),
            Error::Request { .. } => {
                Some("this is a defect of `hn`: nothing was asked for, and nothing changed".to_owned())
            }
            Error::Setup(_) => None,
        };
        Self { code: error.code(), message: error.to_string(), hint, silent: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_exit_code() {
        let mut seen: Vec<u8> = ErrorCode::ALL.into_iter().map(|code| Failure::new(code, "").exit_code()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ErrorCode::ALL.len());
        assert!(seen.iter().all(|code| (64..=78).contains(code)));
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        use clap::Parser;
        let failure = |line: &str| {
            let error = crate::args::Cli::try_parse_from(line.split(' ')).unwrap_err();
            Failure::usage(&error)
        };
        let unknown = failure("hn stats");
        assert_eq!(unknown.exit_code(), 64);
        assert!(unknown.message.starts_with("unrecognized subcommand 'stats'"), "{unknown:?}");
        assert!(unknown.hint.unwrap().contains("'status'"));
        let lacking = failure("hn join");
        assert!(lacking.message.contains("<LINK>") && !lacking.message.contains('\n'), "{lacking:?}");
        assert!(failure("hn up --donate lots").message.contains("a size looks like"));
        assert_eq!(failure("hn").message, "no command was given");
    }

    #[test]
    fn an_agent_that_is_not_there_comes_with_what_to_do() {
        let failure = Failure::from(Error::NotRunning { home: "/x".into(), set_up: true });
        assert_eq!((failure.exit_code(), failure.hint.as_deref()), (69, Some("start it with `hn up`")));
        let failure = Failure::from(Error::NotRunning { home: "/x".into(), set_up: false });
        assert_eq!(failure.exit_code(), 78);
        assert!(failure.hint.unwrap().contains("hn init"));
    }
}
