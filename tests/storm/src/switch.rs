//! The internet of a storm: packets are carried between hosts by this process, as late and as unreliably as its seed says.
//!
//! Each host has a TUN device. What comes out of one goes, by its destination address, into another one after the delay
//! of that pair; packets of a pair do not overtake each other. Some are lost, and all are between hosts that are cut off
//! from each other. So networks are parted and healed in memory, and no rule of a kernel is in the way.
//!
//! Invariant: at most [`QUEUE_MAX`] packets wait for one host. What comes beyond that is lost, as at a router.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tun_rs::SyncDevice;

/// Packets that wait for one host at most.
const QUEUE_MAX: usize = 8_192;
/// The longest packet: the MTU of the devices is below that.
const PACKET_MAX: usize = 2_048;
/// Delays of a pair of hosts, in milliseconds.
const DELAY: (u64, u64) = (5, 80);
/// What varies of a delay, in thousandths of it at most.
const JITTER: u64 = 200;
/// The most packets of a pair that are lost, in ten thousandths. Most pairs lose few.
const LOSS_MAX: u64 = 300;

/// What became of packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// Arrived.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because their hosts were cut off from each other.
    pub cut: u64,
    /// Lost because too many waited.
    pub crowded: u64,
}

/// How it is between two hosts.
#[derive(Clone, Copy, Debug)]
struct Way {
    delay: Duration,
    /// In ten thousandths.
    loss: u64,
    /// How many have cut it.
    cuts: u32,
    /// When the last packet arrives.
    last: Option<Instant>,
}

/// In the order in which they are due.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct State {
    random: ChaCha8Rng,
    /// By the one that sends and the one that receives.
    ways: Vec<Vec<Way>>,
    flying: BinaryHeap<Reverse<Packet>>,
    waiting: Vec<usize>,
    sent: u64,
    carried: Carried,
}

struct Shared {
    addresses: BTreeMap<Ipv4Addr, usize>,
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Its threads carry packets until the process ends.
pub struct Switch(Arc<Shared>);

impl State {
    fn new(seed: u64, hosts: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut ways = vec![vec![Way { delay: Duration::ZERO, loss: 0, cuts: 0, last: None }; hosts]; hosts];
        for one in 0..hosts {
            for other in 0..one {
                let delay = Duration::from_millis(DELAY.0 + random.next_u64() % (DELAY.1 - DELAY.0 + 1));
                let part = random.next_u64() % 1_001;
                let loss = LOSS_MAX * part * part / 1_000_000;
                // As far in one direction as in the other one.
                for (from, to) in [(one, other), (other, one)] {
                    ways[from][to] = Way { delay, loss, cuts: 0, last: None };
                }
            }
        }
        let waiting = vec![0; hosts];
        Self { random, ways, flying: BinaryHeap::new(), waiting, sent: 0, carried: Carried::default() }
    }

    /// Takes a packet in; whether the one that carries has to be woken for it.
    fn send(&mut self, now: Instant, from: usize, to: usize, bytes: &[u8]) -> bool {
        let way = &mut self.ways[from][to];
        if way.cuts > 0 {
            self.carried.cut += 1;
            return false;
        }
        if self.random.next_u64() % 10_000 < way.loss {
            self.carried.lost += 1;
            return false;
        }
        if self.waiting[to] >= QUEUE_MAX {
            self.carried.crowded += 1;
            return false;
        }
        let jitter = way.delay.as_micros() as u64 * (self.random.next_u64() % (JITTER + 1)) / 1_000;
        let due = (now + way.delay + Duration::from_micros(jitter)).max(way.last.unwrap_or(now));
        way.last = Some(due);
        self.waiting[to] += 1;
        self.sent += 1;
        let is_next = self.flying.peek().is_none_or(|Reverse(first)| due < first.due);
        self.flying.push(Reverse(Packet { due, number: self.sent, to, bytes: bytes.to_vec() }));
        is_next
    }

    /// The next packet that is due, or how long nothing is.
    fn next(&mut self, now: Instant) -> Result<Packet, Option<Duration>> {
        match self.flying.peek() {
            Some(Reverse(first)) if first.due > now => Err(Some(first.due - now)),
            _ => {
                let Reverse(packet) = self.flying.pop().ok_or(None)?;
                self.waiting[packet.to] -= 1;
                self.carried.packets += 1;
                self.carried.bytes += packet.bytes.len() as u64;
                Ok(packet)
            }
        }
    }

    fn change(&mut self, from: &[usize], to: &[usize], change: impl Fn(u32) -> u32) {
        for (one, other) in from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other))) {
            for (from, to) in [(one, other), (other, one)] {
                self.ways[from][to].cuts = change(self.ways[from][to].cuts);
            }
        }
    }
}

/// Where a packet is to go: of IPv4 only, as the hosts know no other.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first()? >> 4 == 4;
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| address.into())
}

impl Switch {
    /// Carries packets between these devices, each of which has this address.
    pub fn start(seed: u64, devices: Vec<(Ipv4Addr, SyncDevice)>) -> Result<Self> {
        let addresses = devices.iter().enumerate().map(|(number, (address, _))| (*address, number)).collect();
        let state = Mutex::new(State::new(seed, devices.len()));
        let shared = Arc::new(Shared { addresses, state, wake: Condvar::new() });
        let devices: Arc<Vec<SyncDevice>> = Arc::new(devices.into_iter().map(|(_, device)| device).collect());
        for number in 0..devices.len() {
            let (shared, devices) = (Arc::clone(&shared), Arc::clone(&devices));
            let name = format!("from-{number}");
            let read = move || take_in(&shared, number, &devices[number]);
            thread::Builder::new().name(name).spawn(read).context("cannot start a thread")?;
        }
        let carrying = Arc::clone(&shared);
        thread::Builder::new()
            .name("carries".into())
            .spawn(move || carry(&carrying, &devices))
            .context("cannot start a thread")?;
        Ok(Self(shared))
    }

    /// Lets nothing pass any more between each of some hosts and each of others.
    pub fn cut(&self, some: &[usize], others: &[usize]) {
        self.0.state().change(some, others, |cuts| cuts + 1);
    }

    /// Takes one such cut back.
    pub fn heal(&self, some: &[usize], others: &[usize]) {
        self.0.state().change(some, others, |cuts| cuts.saturating_sub(1));
    }

    /// Whether something passes between two hosts.
    pub fn passes(&self, one: usize, other: usize) -> bool {
        self.0.state().ways[one][other].cuts == 0
    }

    /// What became of all packets so far.
    pub fn carried(&self) -> Carried {
        self.0.state().carried
    }
}

fn take_in(shared: &Shared, from: usize, device: &SyncDevice) {
    let mut buffer = [0; PACKET_MAX];
    // A device fails for good only when its network is gone, and then the storm is over.
    while let Ok(read) = device.recv(&mut buffer) {
        let packet = &buffer[..read];
        let Some(to) = destination(packet).and_then(|address| shared.addresses.get(&address).copied()) else {
            continue;
        };
        if shared.state().send(Instant::now(), from, to, packet) {
            shared.wake.notify_one();
        }
    }
}

fn carry(shared: &Shared, devices: &[SyncDevice]) {
    let mut state = shared.state();
    loop {
        match state.next(Instant::now()) {
            Ok(packet) => {
                drop(state);
                // What a host has no room for is lost.
                let _ = devices[packet.to].send(&packet.bytes);
                state = shared.state();
            }
            Err(Some(wait)) => {
                state = shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            Err(None) => state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_pair_come_in_order_and_none_passes_a_cut() {
        let (mut state, now) = (State::new(1, 3), Instant::now());
        for number in 0..100 {
            state.send(now + Duration::from_millis(number), 0, 1, &[number as u8]);
        }
        assert!(matches!(state.next(now), Err(Some(wait)) if wait >= Duration::from_millis(DELAY.0)));
        let later = now + Duration::from_secs(1);
        let came: Vec<u8> = std::iter::from_fn(|| state.next(later).ok()).map(|packet| packet.bytes[0]).collect();
        assert!(came.is_sorted() && came.len() as u64 == 100 - state.carried.lost, "{came:?}");
        assert!(matches!(state.next(later), Err(None)));

        state.change(&[0], &[1, 2], |cuts| cuts + 1);
        state.change(&[0], &[1], |cuts| cuts + 1);
        state.change(&[1, 2], &[0], |cuts| cuts - 1);
        assert!((0..100).all(|_| !state.send(later, 1, 0, &[1])), "it was cut twice and healed once");
        assert!((0..100).any(|_| state.send(later, 2, 0, &[1])));
        assert_eq!(state.carried.cut, 100);
    }

    #[test]
    fn a_queue_has_an_end() {
        let (mut state, now) = (State::new(1, 2), Instant::now());
        for _ in 0..2 * QUEUE_MAX {
            state.send(now, 0, 1, &[0]);
        }
        assert_eq!((state.flying.len(), state.waiting[1]), (QUEUE_MAX, QUEUE_MAX));
        assert!(state.carried.crowded > 0);
    }

    #[test]
    fn a_seed_makes_the_same_network_again() {
        let shape = |seed| {
            let ways = State::new(seed, 5).ways;
            ways.concat().iter().map(|way| (way.delay, way.loss)).collect::<Vec<_>>()
        };
        assert_eq!(shape(7), shape(7));
        assert_ne!(shape(7), shape(8));
    }

    #[test]
    fn only_whole_headers_have_a_destination() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[198, 18, 3, 1]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(198, 18, 3, 1)));
        assert_eq!((destination(&packet[..19]), destination(&[])), (None, None));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
    }
}
