//! A network of a test's own, with hosts in it that can be parted: the test runs itself again where nothing leaves it.
//!
//! Each host is a network namespace. An agent of a host has its sockets there, and its files and mounts where the test has them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::machine::is_root;

/// Set in the process that has the network of its own.
const INSIDE: &str = "HN_TEST_NETWORK";
const NEEDS: &str = "this needs a network of its own: run it as root, and install iproute2, nftables and util-linux";
/// What `ip netns` keeps its names in, out of everybody else's sight. All is gone with the last process in it.
const PREPARE: &str = "mount -t tmpfs tmpfs /run; mkdir /run/netns; ip link set lo up
    ip link add wan type bridge forward_delay 0
    ip link set wan up\n";

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    address: String,
}

/// Some hosts, each of which reaches all others until they are parted.
#[derive(Debug)]
pub struct Net {
    hosts: Vec<Host>,
}

fn sh(script: &str) -> Result<()> {
    let ran = Command::new("sh").args(["-euc", script]).stdin(Stdio::null()).output().context(NEEDS)?;
    ensure!(ran.status.success(), "{NEEDS}\n{script}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

impl Host {
    fn numbered(number: usize) -> Self {
        Self { name: format!("host{number}"), address: format!("10.77.0.{}", number + 1) }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A program with these arguments, on this host.
    pub(crate) fn runs(&self, command: &Command) -> Command {
        let mut on = Command::new("nsenter");
        let netns: PathBuf = ["/run/netns", &self.name].iter().collect();
        let mut net = OsString::from("--net=");
        net.push(netns);
        on.arg(net).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on.env(name, value),
                None => on.env_remove(name),
            };
        }
        on
    }
}

impl Net {
    /// Runs the test of this name again, in a network of its own with so many hosts; none where it has run there.
    pub fn inside(test: &str, hosts: usize) -> Result<Option<Self>> {
        if std::env::var_os(INSIDE).is_some() {
            return Ok(Some(Self { hosts: (0..hosts).map(Host::numbered).collect() }));
        }
        ensure!(is_root(), "{NEEDS}");
        let mut script = PREPARE.to_owned();
        for Host { name, address } in (0..hosts).map(Host::numbered) {
            write!(
                script,
                "ip netns add {name}
                 ip link add w-{name} type veth peer name eth0 netns {name}
                 ip link set w-{name} master wan up
                 ip -n {name} link set lo up
                 ip -n {name} addr add {address}/24 dev eth0
                 ip -n {name} link set eth0 up\n"
            )?;
        }
        script.push_str("exec \"$@\"");
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--mount", "sh", "-euc", &script, "sh"]).arg(std::env::current_exe()?);
        inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").stdin(Stdio::null());
        let ended = inside.output().context(NEEDS)?;
        let (said, why) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        // A name that fits nothing would be a success, too.
        ensure!(ended.status.success() && said.contains("1 passed"), "{NEEDS}\n{said}\n{why}");
        Ok(None)
    }

    /// One of them.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// From now on only hosts of one part reach each other. What is sent to another part is lost without a word.
    pub fn part(&self, parts: &[&[usize]]) -> Result<()> {
        self.heal()?;
        for (number, Host { name, .. }) in self.hosts.iter().enumerate() {
            let here = parts.iter().find(|part| part.contains(&number)).copied().unwrap_or_default();
            let others = (0..self.hosts.len()).filter(|other| *other != number && !here.contains(other));
            let others: Vec<&str> = others.map(|other| self.hosts[other].address()).collect();
            if others.is_empty() {
                continue;
            }
            let others = others.join(", ");
            sh(&format!(
                "ip netns exec {name} nft -f - <<END
                 table ip parted {{
                     chain in {{
                         type filter hook input priority 0;
                         ip saddr {{ {others} }} drop
                     }}
                 }}
END
"
            ))?;
        }
        Ok(())
    }

    /// All reach each other again.
    pub fn heal(&self) -> Result<()> {
        for Host { name, .. } in &self.hosts {
            sh(&format!(
                "ip netns exec {name} sh -c 'nft list table ip parted && nft delete table ip parted || true'"
            ))?;
        }
        Ok(())
    }
}
