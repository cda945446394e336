//! Where an agent keeps its files: HN_HOME, else `hypernet` under the XDG data directory.
//!
//! Many agents run on one machine, each with its own directory; nothing of an agent lies outside of it but its mount.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Environment variable that names the agent's directory.
pub const ENV: &str = "HN_HOME";

/// Longest path of a Unix socket that Linux accepts, without its final zero.
const SOCKET_PATH_MAX: usize = 107;

/// The agent's directory from the environment.
pub fn resolve() -> PathBuf {
    from_env(std::env::var_os(ENV), || data_dir().join("hypernet"))
}

/// The XDG data directory.
pub fn data_dir() -> PathBuf {
    // The specification says to ignore a relative path.
    match std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir,
        None => std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(".local/share"),
    }
}

fn from_env(value: Option<OsString>, default: impl FnOnce() -> PathBuf) -> PathBuf {
    match value.filter(|value| !value.is_empty()).map(PathBuf::from) {
        // An agent in the background has another working directory.
        Some(path) => std::path::absolute(&path).unwrap_or(path),
        None => default(),
    }
}

/// A directory in which no socket can be, because its name is too long for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {} is too long for a Unix socket ({SOCKET_PATH_MAX} bytes at most)", .0.display())]
pub struct SocketPathTooLong(pub PathBuf);

/// An agent's directory and the paths in it that others than the agent need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// Of this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Of the environment.
    pub fn from_env() -> Self {
        Self(resolve())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("hnd.sock")
    }

    /// The agent's socket, if there can be one: an agent that nobody can talk to is better not begun.
    pub fn usable_socket(&self) -> Result<PathBuf, SocketPathTooLong> {
        let socket = self.socket();
        match socket.as_os_str().len() {
            0..=SOCKET_PATH_MAX => Ok(socket),
            _ => Err(SocketPathTooLong(socket)),
        }
    }

    /// The agent's log.
    pub fn log(&self) -> PathBuf {
        self.0.join("hnd.log")
    }

    /// The keystore.
    pub fn keystore(&self) -> PathBuf {
        self.0.join("keystore.age")
    }

    /// What opens a keystore that has no passphrase.
    pub fn keystore_key(&self) -> PathBuf {
        self.0.join("keystore.key")
    }

    /// The agent's settings; exists once the agent is set up.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// What the agent's settings say that others need to know; none when no agent is set up, or they are damaged, which
    /// the agent itself says better.
    pub fn settings(&self) -> Option<Settings> {
        self.read_settings().filter(|settings| !settings.begun)
    }

    fn read_settings(&self) -> Option<Settings> {
        serde_json::from_slice(&std::fs::read(self.config()).ok()?).ok()
    }

    /// Whether `hn init` or `hn recover` ran here, to its end. Where the settings are lost and the keystore is not,
    /// there is an agent, too: a damaged one.
    pub fn is_set_up(&self) -> bool {
        match self.read_settings() {
            Some(settings) => !settings.begun,
            None => self.config().exists() || self.keystore().exists(),
        }
    }
}

/// The part of the agent's settings that is not the agent's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// It has no identity and no volume.
    #[serde(default)]
    pub storage_only: bool,
    /// It was made from a keystore and has not found its head yet.
    #[serde(default)]
    pub recovering: bool,
    /// Whoever was to set it up did not end. Nothing of it has been used.
    #[serde(default)]
    pub begun: bool,
    /// Where it was mounted last.
    #[serde(default, with = "crate::exact_path::option")]
    pub mount: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_and_is_made_absolute() {
        let default = || PathBuf::from("/default");
        assert_eq!(from_env(None, default), PathBuf::from("/default"));
        assert_eq!(from_env(Some("".into()), default), PathBuf::from("/default"));
        assert_eq!(from_env(Some("/a/b".into()), default), PathBuf::from("/a/b"));
        assert!(from_env(Some("b".into()), default).is_absolute());
    }

    #[test]
    fn a_socket_may_have_the_longest_name_and_none_longer() {
        let room = SOCKET_PATH_MAX - "/hnd.sock".len();
        let longest = Home::new(format!("/{}", "x".repeat(room - 1)));
        assert_eq!(longest.usable_socket(), Ok(longest.socket()));
        let longer = Home::new(format!("/{}", "x".repeat(room)));
        assert_eq!(longer.usable_socket(), Err(SocketPathTooLong(longer.socket())));
    }

    #[test]
    fn settings_are_read_loosely() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        assert_eq!((home.settings(), home.is_set_up()), (None, false));
        std::fs::write(home.config(), r#"{"version":9,"recovering":true,"of_tomorrow":[1]}"#).unwrap();
        assert_eq!(home.settings(), Some(Settings { recovering: true, ..Settings::default() }));
        assert!(home.is_set_up());
        std::fs::copy(home.config(), home.keystore()).unwrap();
        std::fs::write(home.config(), r#"{"version":1,"begun":true}"#).unwrap();
        assert_eq!((home.settings(), home.is_set_up()), (None, false), "its making did not end");
        std::fs::write(home.config(), "damaged").unwrap();
        assert_eq!((home.settings(), home.is_set_up()), (None, true));
        std::fs::remove_file(home.config()).unwrap();
        assert!(home.is_set_up(), "there is a keystore");
    }
}
