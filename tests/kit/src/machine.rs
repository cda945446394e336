//! What a test needs of the machine. Where it is missing the test fails and says what to do: a test that passes because
//! it did nothing would show a promise as kept that nobody has looked at.
//!
//! Who runs tests where it cannot be had says so: [`ENV_WITHOUT`] names what there is none of, separated by commas.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

/// Environment variable that names what this machine has not got: `HN_TEST_WITHOUT=fuse,root`.
pub const ENV_WITHOUT: &str = "HN_TEST_WITHOUT";

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to mount filesystems of one's own.
    Fuse,
    /// To be root: to become somebody else, and to mount filesystems of the kernel.
    Root,
    /// A keyring such as desktops have, to be started in a session of its own.
    Keyring,
    /// Networks of one's own: namespaces, routers, and devices whose packets a process carries.
    Networks,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Root => "root",
            Self::Keyring => "keyring",
            Self::Networks => "networks",
        }
    }

    /// What is missing and what to do, in one line; none when it is there.
    fn missing(self) -> Option<String> {
        match self {
            Self::Fuse => fuse_missing(Path::new("/dev/fuse"), is_root()),
            Self::Root => (!is_root()).then(|| "this test must be run by root".to_owned()),
            Self::Keyring => keyring_missing(),
            Self::Networks => networks_missing(Path::new("/dev/net/tun"), is_root()),
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn fuse_missing(device: &Path, root: bool) -> Option<String> {
    let shown = device.display();
    if !device.exists() {
        return Some(format!(
            "{shown} does not exist: load it with `modprobe fuse` (in a container: pass --device {shown})"
        ));
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Some(format!("{shown} cannot be opened ({error}): run `chmod 0666 {shown}` as root"));
    }
    let helper = || Command::new("fusermount3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!root && helper().is_err()).then(|| "fusermount3 is missing: install the package fuse3".to_owned())
}

fn networks_missing(device: &Path, root: bool) -> Option<String> {
    if !root {
        return Some("networks of one's own take root: run this test as root".to_owned());
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Some(format!("{} cannot be opened ({error}): load it with `modprobe tun`", device.display()));
    }
    let missing =
        |program: &&str| Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    let program = ["ip", "nft", "unshare", "nsenter"].into_iter().find(missing)?;
    Some(format!("{program} is missing: install the packages iproute2, nftables and util-linux"))
}

fn keyring_missing() -> Option<String> {
    let missing = |program: &&str| {
        let mut asked = Command::new(program);
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let program = ["gnome-keyring-daemon", "dbus-run-session"].into_iter().find(missing)?;
    Some(format!("{program} is missing: install the packages gnome-keyring and dbus-daemon"))
}

/// Whether the kernel can read and write backing files itself here: Linux 6.9 has it, for root. Where that is so, a mount
/// that does without is a failure; elsewhere what runs in this profile runs in the other one only.
#[must_use]
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
pub fn has_passthrough() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let has = is_root() && knows_passthrough(&release);
    if !has {
        eprintln!("left out: passthrough needs root and Linux 6.9, and this is Linux {release}");
    }
    has
}

fn knows_passthrough(release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(6), Some(9))
}

/// Whether the test can run. It is false only where [`ENV_WITHOUT`] says that there is none of it.
///
/// # Panics
///
/// Where something is missing that the variable does not name.
#[must_use]
#[track_caller]
pub fn has(needs: &[Need]) -> bool {
    let without = std::env::var(ENV_WITHOUT).unwrap_or_default();
    match decide(needs, &without, Need::missing) {
        Ok(can) => can,
        Err(why) => panic!("{why}"),
    }
}

#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn decide(needs: &[Need], without: &str, missing: impl Fn(Need) -> Option<String>) -> Result<bool, String> {
    if let Some(need) = needs.iter().find(|need| without.split(',').any(|name| name.trim() == need.name())) {
        eprintln!("left out: {ENV_WITHOUT} says that there is no {} here", need.name());
        return Ok(false);
    }
    match needs.iter().find_map(|need| Some((need, missing(*need)?))) {
        None => Ok(true),
        Some((need, why)) => Err(format!("{why}; or set {ENV_WITHOUT}={} to leave such tests out", need.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_fails_unless_it_is_said_to_be() {
        let no_root = |need| (need == Need::Root).then(|| "become root".to_owned());
        let both = [Need::Fuse, Need::Root];
        assert_eq!(decide(&both, "", |_| None), Ok(true));
        assert_eq!(decide(&[Need::Fuse], "root", no_root), Ok(true), "it needs no root");
        assert_eq!(decide(&both, "fuse, root", no_root), Ok(false));
        let why = decide(&both, "fusion", no_root).unwrap_err();
        assert_eq!(why, "become root; or set HN_TEST_WITHOUT=root to leave such tests out");
    }

    #[test]
    fn kernels_are_told_apart() {
        assert!(["6.9.0", "6.18.5-amd64", "7.0"].into_iter().all(knows_passthrough));
        assert!(!["6.8.12", "6.1.0-18-amd64", "5.19"].into_iter().any(knows_passthrough));
    }

    #[test]
    fn each_lack_of_networks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("tun");
        assert!(networks_missing(&device, false).unwrap().contains("as root"));
        assert!(networks_missing(&device, true).unwrap().contains("modprobe tun"));
    }

    #[test]
    fn each_lack_of_fuse_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("fuse");
        assert!(fuse_missing(&device, true).unwrap().contains("modprobe fuse"));
        // A directory cannot be opened for writing, whoever asks.
        assert!(fuse_missing(dir.path(), true).unwrap().contains("chmod 0666"));
        std::fs::write(&device, "").unwrap();
        assert_eq!(fuse_missing(&device, true), None);
    }
}
