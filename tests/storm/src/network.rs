//! Hosts with networks of their own, some behind a router that lets nobody in.
//!
//! Each host is a network namespace; only its network is another one, so a mount that is made there is seen everywhere.
//! All of it is in the namespaces of [`crate::inside`], and goes away with the last process there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use hypernet_kit::hn;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Where `ip netns` keeps the names of networks.
const NETWORKS: &str = "/run/netns";
/// The device whose packets the switch carries.
const DEVICE: &str = "tun0";

/// How a host is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everybody can reach it.
    Open,
    /// Behind a router that can be opened from inside.
    Cone,
    /// Behind a router that takes another port for each that is talked to.
    Symmetric,
}

/// What a host's network is called.
pub fn name(host: usize) -> String {
    format!("h{host}")
}

/// The file that stands for a host's network.
pub fn file(host: usize) -> String {
    format!("{NETWORKS}/{}", name(host))
}

/// The address by which others see a host. Each is in a subnet of its own, as peers of several people are; the range is
/// set aside for such tests.
pub fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, u8::try_from(host + 1).unwrap_or(u8::MAX), 1)
}

fn sh(script: &str) -> Result<()> {
    hn::run(Command::new("sh").args(["-euc", script]))?.ok().map(drop)
}

/// Makes a device in this network.
fn device_in(network: &str) -> Result<SyncDevice> {
    let path = format!("{NETWORKS}/{network}");
    // A thread belongs to a network; this one ends, and its device stays where it was made.
    let making = thread::spawn(move || -> Result<SyncDevice> {
        let network = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).context("cannot enter it")?;
        DeviceBuilder::new().name(DEVICE).inherit_enable_state().build_sync().context("cannot make a TUN device")
    });
    making.join().map_err(|_| anyhow!("making a device panicked"))?
}

/// Makes a host, and gives the device by which it is connected to all others.
pub fn make(host: usize, place: Place) -> Result<SyncDevice> {
    let (inside, address) = (name(host), address(host));
    let outside = if place == Place::Open { inside.clone() } else { format!("r{host}") };
    sh(&format!("ip netns add {outside}; ip -n {outside} link set lo up"))?;
    let device = device_in(&outside)?;
    sh(&format!(
        "ip -n {outside} addr add {address}/32 dev {DEVICE}
         ip -n {outside} link set {DEVICE} up
         ip -n {outside} route add default dev {DEVICE}"
    ))?;
    if place != Place::Open {
        sh(&home(&outside, &inside, place))?;
    }
    Ok(device)
}

/// The script of a host behind a router.
fn home(router: &str, host: &str, place: Place) -> String {
    let random = if place == Place::Symmetric { " fully-random" } else { "" };
    format!(
        "ip netns add {host}
         ip link add eth1 netns {router} type veth peer name eth0 netns {host}
         ip -n {router} addr add 192.168.1.1/24 dev eth1
         ip -n {router} link set eth1 up
         ip -n {host} link set lo up
         ip -n {host} addr add 192.168.1.2/24 dev eth0
         ip -n {host} link set eth0 up
         ip -n {host} route add default via 192.168.1.1
         nsenter --net={NETWORKS}/{router} sysctl -qw net.ipv4.ip_forward=1
         nsenter --net={NETWORKS}/{router} nft -f - <<END
         table ip home {{
             chain hide {{
                 type nat hook postrouting priority 100;
                 oifname {DEVICE} masquerade{random}
             }}
             chain guard {{
                 type filter hook forward priority 0; policy drop;
                 iifname eth1 accept
                 ct state established,related accept
             }}
             chain own {{
                 type filter hook input priority 0;
                 iifname {DEVICE} ct state new drop
             }}
         }}
END
"
    )
}
