//! After a sleep, and when an address comes or goes: whoever is not there is dialed now, and not when a backoff that
//! grew while nobody could be reached has passed.
//!
//! Invariant: this happens at most once in [`RENEW_EVERY`], whatever the machine's interfaces do.

use std::time::SystemTime;

use super::*;

/// How often the clocks are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// The wall's clock goes on while a machine sleeps and the other one does not: this much apart, it has slept. Somebody may
/// have set it, too, and then a few peers are dialed for nothing.
const SLEPT: Duration = Duration::from_secs(15);
/// Interfaces come up one address after the other.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Connections that an old address carried are missed by then, one after the other, and each is made again at once.
const RENEWING: Duration = Duration::from_secs(60);

/// While whoever was lost is dialed again, this often.
const AGAIN: Duration = Duration::from_secs(2);

/// Two clocks, to be compared.
pub(super) struct Clocks {
    wall: SystemTime,
    steady: std::time::Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), steady: std::time::Instant::now() }
    }

    /// For how long the steady one stood still since then.
    fn slept(&self, now: &Self) -> Duration {
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        wall.saturating_sub(now.steady.saturating_duration_since(self.steady))
    }
}

impl Driver {
    pub(super) fn compare_clocks(&mut self) {
        let now = Clocks::now();
        if self.clocks.slept(&now) >= SLEPT {
            self.renew("this machine has slept");
        }
        self.clocks = now;
        self.timers.set(Instant::now() + COMPARE_EVERY, Timer::Clocks);
    }

    /// An address of ours has come or gone.
    pub(super) fn on_address_change(&mut self, addr: &Multiaddr) {
        if address::transport(addr).is_some() && !address::is_loopback(addr) {
            self.renew("an address has come or gone");
        }
    }

    /// An address of ours is gone, and all that it carried with it: the other ends would miss us only in their own time.
    pub(super) fn let_go(&mut self, addr: &Multiaddr) {
        let Some(ip) = address::ip(addr).filter(|ip| !ip.is_loopback()) else { return };
        self.swarm.remove_external_address(addr);
        self.on_not_external(addr);
        // The same address may be that of another listener.
        if self.swarm.listeners().any(|other| other != addr && address::ip(other) == Some(ip)) {
            return;
        }
        let links = self.peers.values().flat_map(|peer| &peer.links).filter(|link| link.from == Some(ip));
        for link in links.map(|link| link.id).collect::<Vec<_>>() {
            self.swarm.close_connection(link);
        }
    }

    /// A peer that was lost a moment ago, with an old address, could not be dialed: the new one may not lead there yet.
    pub(super) fn try_again(&mut self, p2p: P2p) {
        if self.is_renewing() && self.reach.was_here(&p2p, RENEWING) {
            self.timers.set(Instant::now() + AGAIN, Timer::Again(p2p));
        }
    }

    /// Dials whoever is not there.
    pub(super) fn renew(&mut self, why: &str) {
        let now = Instant::now();
        if let Some(last) = self.reach.renewed.filter(|last| now.saturating_duration_since(*last) < RENEW_EVERY) {
            if self.reach.renew_timer.is_none() {
                self.reach.renew_timer = Some(self.timers.set(last + RENEW_EVERY, Timer::Renew));
            }
            return;
        }
        self.reach.renewed = Some(now);
        if let Some(timer) = self.reach.renew_timer.take() {
            self.timers.cancel(timer);
        }
        debug!(why, "peers that are not connected are dialed anew");
        self.swarm.behaviour_mut().kad.forget_absent();
        self.forget_punches();
        for known in &mut self.bootstrap {
            known.failures = 0;
            if let Some(timer) = known.redialing.take() {
                self.timers.cancel(timer);
            }
        }
        self.dial_bootstrap();
        for peer in self.book.some(hypernet_core::limits::MESH_SMALL) {
            if peer != self.me && !self.foreign.contains(&peer) && !self.blocked.contains_key(&peer) {
                self.dial_peer(peer);
            }
        }
        self.refresh_soon();
        self.look_for_relays();
    }

    /// Whether what is lost now was most likely lost with an old address.
    pub(super) fn is_renewing(&self) -> bool {
        self.reach.renewed.is_some_and(|last| last.elapsed() < RENEWING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_the_difference_of_two_clocks() {
        let start = Clocks::now();
        let hour = Duration::from_secs(3600);
        let later = |wall, steady| Clocks { wall: start.wall + wall, steady: start.steady + steady };
        assert_eq!(start.slept(&later(hour, hour)), Duration::ZERO);
        assert_eq!(start.slept(&later(hour + SLEPT, hour)), SLEPT);
        // Somebody has put it back.
        let back = Clocks { wall: start.wall - hour, steady: start.steady + hour };
        assert_eq!(start.slept(&back), Duration::ZERO);
    }
}
