//! Networks of a test's own: the test runs itself again where nothing leaves it, with hosts and routers in it.
//!
//! Each host is a network namespace, and a namespace belongs to a thread: a mesh of a host runs on a thread of its own,
//! whose sockets are all made there.

use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Output;

use hypernet_mesh::{Mesh, MeshConfig, MeshEvent};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::peer::{LIMIT, Peer};

/// Set in the process that has the network of its own.
const INSIDE: &str = "HYPERNET_TEST_NETWORK";
/// What `ip netns` keeps its names in, out of everybody else's sight. All is gone with the last process in it.
const PREPARE: &str = "mount -t tmpfs tmpfs /run; mkdir /run/netns; ip link set lo up";
const NEEDS: &str = "this needs a network of its own: run it as root, or allow user namespaces \
    (sysctl kernel.unprivileged_userns_clone=1), and install iproute2 and nftables";

/// Runs the test of this name again, after `make`, in a network of its own; whether this is that run.
pub(crate) async fn is_inside(name: &str, make: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut inside = Command::new("unshare");
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        inside.args(["--user", "--map-root-user"]);
    }
    let script = format!("{PREPARE}\n{make}\nexec \"$@\"");
    inside.args(["--net", "--mount", "sh", "-euc", &script, "sh"]).arg(env::current_exe().unwrap());
    inside.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").kill_on_drop(true);
    let ended = timeout(3 * LIMIT, inside.output()).await.expect("it ends").expect(NEEDS);
    let (said, why) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    // A name that fits nothing would be a success, too.
    assert!(ended.status.success() && said.contains("1 passed"), "{NEEDS}\n{said}\n{why}");
    false
}

/// Does something to the network, in the words of a shell.
pub(crate) async fn sh(script: &str) {
    let Output { status, stderr, .. } = Command::new("sh").args(["-euc", script]).output().await.unwrap();
    assert!(status.success(), "{script}: {}", String::from_utf8_lossy(&stderr));
}

/// The script of a host on the internet: what is in the bridge `wan`.
pub(crate) fn host(name: &str, address: &str) -> String {
    format!(
        "ip netns add {name}
         ip link add w-{name} type veth peer name eth0 netns {name}
         ip link set w-{name} master wan up
         ip -n {name} link set lo up
         ip -n {name} addr add {address}/24 dev eth0
         ip -n {name} link set eth0 up
         ip -n {name} route add default dev eth0\n"
    )
}

/// The internet itself.
pub(crate) const WAN: &str = "ip link add wan type bridge forward_delay 0
    ip addr add 203.0.113.254/24 dev wan
    ip link set wan up\n";

/// How a router hides the hosts behind it.
#[derive(Clone, Copy)]
pub(crate) enum Nat {
    /// One port outside for one inside, wherever it goes: it can be opened from inside.
    Cone,
    /// Another port outside for each that is talked to: nobody can tell which it will be.
    Symmetric,
    /// What comes to port 4001 is let in.
    Forward,
}

/// The script of a router with this address outside, and of a host behind it, `192.168.net.2`.
pub(crate) fn home(name: &str, outside: &str, net: u8, nat: Nat) -> String {
    let random = match nat {
        Nat::Cone | Nat::Forward => "",
        Nat::Symmetric => " fully-random",
    };
    let forward = match nat {
        Nat::Cone | Nat::Symmetric => String::new(),
        Nat::Forward => format!("iifname eth0 udp dport 4001 dnat to 192.168.{net}.2"),
    };
    let router = format!("r-{name}");
    host(&router, outside)
        + &format!(
            "ip netns add {name}
             ip link add eth1 netns {router} type veth peer name eth0 netns {name}
             ip -n {router} addr add 192.168.{net}.1/24 dev eth1
             ip -n {router} link set eth1 up
             ip -n {name} link set lo up
             ip -n {name} addr add 192.168.{net}.2/24 dev eth0
             ip -n {name} link set eth0 up
             ip -n {name} route add default via 192.168.{net}.1
             ip netns exec {router} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
             ip netns exec {router} nft -f - <<END
             table ip home {{
                 chain hide {{
                     type nat hook postrouting priority 100;
                     oifname eth0 masquerade{random}
                 }}
                 chain forward {{
                     type nat hook prerouting priority -100;
                     {forward}
                 }}
                 chain guard {{
                     type filter hook forward priority 0; policy drop;
                     iifname eth1 accept
                     ct status dnat accept
                     ct state established,related accept
                 }}
                 chain own {{
                     type filter hook input priority 0;
                     iifname eth0 ct state new drop
                 }}
             }}
END
"
        )
}

/// A mesh on a host.
pub(crate) struct Away {
    pub(crate) peer: Peer,
    /// Until this is dropped.
    pub(crate) running: oneshot::Sender<()>,
}

/// Starts a mesh on a host.
pub(crate) async fn start_on(host: &str, config: MeshConfig) -> Away {
    let (started, mesh) = oneshot::channel::<(Mesh, mpsc::Receiver<MeshEvent>)>();
    let (stop, stopped) = oneshot::channel::<()>();
    let netns = File::open(format!("/run/netns/{host}")).expect("the host is there");
    std::thread::spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(kind)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = started.send(Mesh::start(config).await.unwrap());
            let _ = stopped.await;
        });
    });
    let (mesh, events) = mesh.await.expect("it starts");
    Away { peer: Peer { mesh, events }, running: stop }
}
