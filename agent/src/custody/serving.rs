//! The custodian's side: tickets that this agent has given out, and what it looks after by them.
//!
//! It needs no identity and no volume of its own. What is given out is on the disk before anybody sees it; and the last list of
//! what is to be looked after is kept, so a restart while the owner is away changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use hypernet_core::codec::{self, Format};
use hypernet_core::custody::{Appointment, Tag, Ward, Wards};
use hypernet_core::id::PeerId;
use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::name::is_name;
use hypernet_core::port::PortError;
use hypernet_core::time::UnixSeconds;
use hypernet_fs::panics;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;

use super::ward::{Charge, Standing};
use super::{NAME_MAX, Ticket};
use crate::config::Home;
use crate::driver::NodeHandle;
use crate::failure::{Failure, Kind};
use crate::files;
use crate::identity::places::{self, At};
use crate::keystore::random_secret;
use crate::peers::Peers;
use crate::volume::audit::Auditor;
use crate::volume::write::unix_now;

/// Tickets that one agent gives out.
pub(crate) const TICKETS_MAX: usize = 64;
/// Digits of a tag by which a ticket is named: fewer than are shown.
const ID_MIN: usize = 4;

/// A ticket that was given out.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Given {
    /// What it and whoever has it have in common.
    #[n(0)]
    secret: Secret,
    /// Of the leases that are taken for it: nobody else has that.
    #[n(1)]
    leases: Secret,
    #[n(2)]
    pub(crate) made: UnixSeconds,
    /// For whom, in the words of whoever gave it out.
    #[n(3)]
    pub(crate) name: String,
    /// The number of the newest list of what is to be looked after,
    #[n(4)]
    sequence: u64,
    /// and that list.
    #[cbor(n(5), with = "minicbor::bytes")]
    wards: Vec<u8>,
}

impl Given {
    fn appointment(&self) -> Appointment {
        Appointment::new(self.secret.clone())
    }

    fn wards(&self) -> Wards {
        codec::decode(&self.wards).unwrap_or_default()
    }
}

/// All of them.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Tickets {
    #[n(0)]
    given: Vec<Given>,
}
hypernet_core::format!(Tickets, tag = 0x67, version = 1, max = 1 << 20, name = "custody tickets");

/// A volume that is looked after.
struct Held {
    charge: Arc<Charge>,
    auditor: Arc<Auditor>,
    standing: Standing,
    trouble: Option<String>,
    mended: u64,
}

/// What is shown of a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// In hex.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) made: u64,
    /// Volumes that are looked after by it,
    pub(crate) volumes: u64,
    /// segments in them, those of which rows are to be made anew, and those that nobody can mend.
    pub(crate) segments: u64,
    pub(crate) due: u64,
    pub(crate) lost: u64,
    /// Segments that were mended since the start,
    pub(crate) mended: u64,
    /// and rows that have moved and that the owner does not know of yet.
    pub(crate) moves: u64,
    /// When all was last looked at, in seconds since 1970.
    pub(crate) looked: Option<u64>,
    pub(crate) trouble: Option<String>,
}

/// What this agent looks after for others.
pub(crate) struct Serving {
    home: Home,
    me: PeerId,
    node: NodeHandle,
    round: u64,
    peers: Arc<Peers>,
    tickets: Mutex<Tickets>,
    held: Mutex<BTreeMap<(Tag, Tag), Held>>,
    looked: Mutex<BTreeMap<Tag, u64>>,
    /// Of whoever looks after something. There is nothing in it.
    turn: Mutex<()>,
}

impl Serving {
    /// Goes on with what was given out before. `round`: how long a round of audits takes, in seconds.
    pub(crate) fn open(home: &Home, me: PeerId, node: NodeHandle, round: u64) -> Result<Self, Failure> {
        let path = home.custody_tickets();
        let wrong = |why: String| {
            Failure::new(Kind::Data, format!("{} cannot be read: {why}", path.display())).hint(
                "it says for whom this agent looks after segments: put it back from a backup, or remove it and give out new \
                 tickets by `hn custodian offer`",
            )
        };
        let tickets = match fs::metadata(&path) {
            Ok(found) if found.len() > Tickets::MAX as u64 => {
                return Err(wrong(format!("it has {} bytes", found.len())));
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
                codec::decode(&bytes).map_err(|error| wrong(error.to_string()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Tickets::default(),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let peers = Arc::new(Peers::new(node.clone()));
        Ok(Self {
            home: home.clone(),
            me,
            node,
            round,
            peers,
            tickets: Mutex::new(tickets),
            held: Mutex::default(),
            looked: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// Changes what was given out; it is on the disk when this returns.
    fn change<T>(&self, change: impl FnOnce(&mut Tickets) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut tickets = self.tickets.lock();
        let mut changed = tickets.clone();
        let said = change(&mut changed)?;
        if changed != *tickets {
            files::write_secret(&self.home.custody_tickets(), &codec::encode(&changed))?;
            *tickets = changed;
        }
        Ok(said)
    }

    /// Gives out a ticket.
    pub(crate) fn offer(&self, name: &str) -> Result<(Ticket, Served), Failure> {
        if !is_name(name, NAME_MAX) {
            return Err(Failure::new(
                Kind::Usage,
                format!("a name has between 1 and {NAME_MAX} bytes, and no blanks around it"),
            ));
        }
        let given = Given {
            secret: random_secret()?,
            leases: random_secret()?,
            made: UnixSeconds(unix_now()),
            name: name.to_owned(),
            sequence: 0,
            wards: codec::encode(&Wards::default()),
        };
        let made = given.clone();
        self.change(|tickets| {
            if tickets.given.len() >= TICKETS_MAX {
                return Err(Failure::new(Kind::CantCreate, format!("there are {TICKETS_MAX} tickets already"))
                    .hint("take one back: `hn custodian withdraw ID`; `hn custodian` shows them"));
            }
            tickets.given.push(given);
            Ok(())
        })?;
        let served = self.served(&made);
        Ok((Ticket { peer: self.me, appointment: made.appointment() }, served))
    }

    /// Looks after nothing any more by a ticket that is named by the beginning of its id, or by its name.
    pub(crate) fn withdraw(&self, name: &str) -> Result<Served, Failure> {
        let is_meant = |given: &Given| {
            let id = HEXLOWER.encode(&given.appointment().tag().0);
            given.name == name || (name.len() >= ID_MIN && id.starts_with(name))
        };
        let meant: Vec<Given> = self.tickets.lock().given.iter().filter(|given| is_meant(given)).cloned().collect();
        let given = match meant.as_slice() {
            [given] => given.clone(),
            [] => {
                return Err(Failure::new(Kind::NoInput, format!("no ticket is called {name}"))
                    .hint("`hn custodian` shows them"));
            }
            several => {
                return Err(Failure::new(Kind::Usage, format!("{} tickets are called {name}", several.len()))
                    .hint("name it by its id, which `hn custodian` shows"));
            }
        };
        let served = self.served(&given);
        self.change(|tickets| {
            tickets.given.retain(|other| other.secret != given.secret);
            Ok(())
        })?;
        let tag = given.appointment().tag();
        // Whoever looks after something now comes to an end first: then, or at the next look, what is known of it goes.
        if let Some(_turn) = self.turn.try_lock() {
            self.held.lock().retain(|(of, _), _| *of != tag);
            self.forget(&self.dir_of(&tag));
        }
        Ok(served)
    }

    /// Directories are no more than what was read from the mesh, and which leases there are.
    fn forget(&self, dir: &PathBuf) {
        if let Err(error) = fs::remove_dir_all(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "what was looked after cannot be removed");
        }
    }

    /// What was withdrawn while it was looked after.
    fn forget_withdrawn(&self, given: &[Given]) {
        let tags: BTreeSet<Tag> = given.iter().map(|given| given.appointment().tag()).collect();
        self.held.lock().retain(|(of, _), _| tags.contains(of));
        let Ok(dirs) = fs::read_dir(self.home.custody()) else { return };
        let known: BTreeSet<PathBuf> = tags.iter().map(|tag| self.dir_of(tag)).collect();
        for dir in dirs.flatten().map(|dir| dir.path()).filter(|dir| !known.contains(dir)) {
            self.forget(&dir);
        }
    }

    fn dir_of(&self, appointment: &Tag) -> PathBuf {
        self.home.custody().join(HEXLOWER.encode(&appointment.0))
    }

    fn served(&self, given: &Given) -> Served {
        let tag = given.appointment().tag();
        let mut served = Served {
            id: HEXLOWER.encode(&tag.0),
            name: given.name.clone(),
            made: given.made.0,
            looked: self.looked.lock().get(&tag).copied(),
            ..Served::default()
        };
        let volumes: BTreeSet<Tag> = given.wards().wards.iter().map(|ward| ward.volume).collect();
        served.volumes = volumes.len() as u64;
        for ((of, _), held) in self.held.lock().iter().filter(|((of, _), _)| *of == tag) {
            debug_assert!(*of == tag);
            served.segments += held.standing.segments;
            served.due += held.standing.repaired.due - held.standing.repaired.mended.min(held.standing.repaired.due);
            served.lost += held.standing.repaired.lost;
            served.moves += held.standing.moves;
            served.mended += held.mended;
            let failed = held.trouble.clone().or_else(|| held.standing.repaired.failed.clone());
            served.trouble = served.trouble.or(failed);
        }
        served
    }

    /// All tickets, in the order in which they were given out.
    pub(crate) fn list(&self) -> Vec<Served> {
        let given = self.tickets.lock().given.clone();
        given.iter().map(|given| self.served(given)).collect()
    }

    /// Looks after all of it, one volume after the other, until so many bytes were placed; it was last looked `every` seconds ago.
    /// Blocks.
    pub(crate) fn tend(&self, bytes: u64, every: u64) {
        let _turn = self.turn.lock();
        let given = self.tickets.lock().given.clone();
        self.forget_withdrawn(&given);
        let mut left = bytes;
        for given in given {
            let tag = given.appointment().tag();
            let wards = match self.look_for_wards(&given) {
                Ok(wards) => wards,
                Err(failure) => {
                    tracing::warn!(ticket = given.name, %failure, "what is to be looked after cannot be read now");
                    given.wards()
                }
            };
            let mut volumes: BTreeMap<Tag, Vec<Ward>> = BTreeMap::new();
            for ward in &wards.wards {
                volumes.entry(ward.volume).or_default().push(*ward);
            }
            let gone: Vec<(Tag, Tag)> = {
                let held = self.held.lock();
                held.keys().filter(|(of, volume)| *of == tag && !volumes.contains_key(volume)).copied().collect()
            };
            for key in gone {
                self.held.lock().remove(&key);
                self.forget(&self.dir_of(&key.0).join(HEXLOWER.encode(&key.1.0)));
            }
            let avoid: BTreeSet<PeerId> = wards.custodians.iter().copied().chain([self.me]).collect();
            for (volume, wards) in volumes {
                let placed = self.tend_volume(&given, volume, &wards, &avoid, left, every);
                left = left.saturating_sub(placed);
            }
            self.looked.lock().insert(tag, unix_now());
        }
    }

    /// The newest list of what is to be looked after.
    fn look_for_wards(&self, given: &Given) -> Result<Wards, Failure> {
        let place = given.appointment().wards();
        let failed = |error: PortError| crate::agent::port_failure(error);
        let Some(record) = self.peers.lookup(place.record_key()).map_err(failed)? else { return Ok(given.wards()) };
        if record.sequence <= given.sequence {
            return Ok(given.wards());
        }
        let At::Here(bytes) = places::read(&self.peers, &record, &place.sealing_key()).map_err(failed)? else {
            return Ok(given.wards());
        };
        let wards: Wards = codec::decode(&bytes).map_err(|error| Failure::new(Kind::Data, error.to_string()))?;
        if !wards.is_sound() {
            return Err(Failure::new(Kind::Data, "it names more than may be looked after by one ticket"));
        }
        self.change(|tickets| {
            if let Some(kept) = tickets.given.iter_mut().find(|kept| kept.secret == given.secret) {
                (kept.sequence, kept.wards) = (record.sequence, bytes);
            }
            Ok(())
        })?;
        Ok(wards)
    }

    /// Bytes that were placed.
    fn tend_volume(
        &self,
        given: &Given,
        volume: Tag,
        wards: &[Ward],
        avoid: &BTreeSet<PeerId>,
        bytes: u64,
        every: u64,
    ) -> u64 {
        let key = (given.appointment().tag(), volume);
        let (charge, auditor) = match self.charge(given, volume) {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(ticket = given.name, %error, "what is looked after cannot be opened");
                return 0;
            }
        };
        let tended = panics::caught(|| charge.tend(wards, avoid, bytes));
        let tended = tended.unwrap_or_else(|text| Err(PortError::Disk(text)));
        let audited = auditor.tend(UnixSeconds(unix_now()), every);
        let mut held = self.held.lock();
        let Some(held) = held.get_mut(&key) else { return 0 };
        let placed = match tended {
            Ok(standing) => {
                let placed = standing.repaired.bytes;
                if standing.repaired.due + standing.repaired.lost > 0 {
                    let Standing { segments, repaired, moves, .. } = &standing;
                    tracing::info!(
                        ticket = given.name,
                        segments,
                        ?repaired,
                        moves,
                        "somebody's segments are looked after"
                    );
                }
                held.mended += standing.repaired.mended;
                held.trouble.clone_from(&standing.trouble);
                held.standing = standing;
                placed
            }
            Err(error) => {
                held.trouble = Some(error.to_string());
                0
            }
        };
        if let Err(error) = audited {
            held.trouble.get_or_insert(error.to_string());
        }
        placed
    }

    fn charge(&self, given: &Given, volume: Tag) -> Result<(Arc<Charge>, Arc<Auditor>), PortError> {
        let appointment = given.appointment();
        let key = (appointment.tag(), volume);
        let mut held = self.held.lock();
        if let Some(held) = held.get(&key) {
            return Ok((held.charge.clone(), held.auditor.clone()));
        }
        let dir = self.dir_of(&key.0).join(HEXLOWER.encode(&volume.0));
        let device = DeviceKeys::new(given.leases.clone());
        let charge = Arc::new(Charge::open(&dir, appointment, volume, device, self.node.clone(), self.peers.clone())?);
        let auditor = Arc::new(Auditor::open(charge.clone(), self.round)?);
        let (standing, trouble, mended) = (Standing::default(), None, 0);
        held.insert(key, Held { charge: charge.clone(), auditor: auditor.clone(), standing, trouble, mended });
        Ok((charge, auditor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::double::Mesh;

    fn golden() -> Tickets {
        let (secret, leases) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let wards = codec::encode(&Wards { wards: Vec::new(), custodians: vec![PeerId([3; 32])] });
        let given = Given { secret, leases, made: UnixSeconds(4), name: "anna".into(), sequence: 5, wards };
        Tickets { given: vec![given] }
    }

    #[test]
    fn tickets_are_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/custody-tickets.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        assert!(codec::decode::<Tickets>(&bytes).unwrap() == golden());
        crate::golden::mutations(&bytes, |bytes| {
            let _ = codec::decode::<Tickets>(bytes);
        });
    }

    #[test]
    fn a_ticket_outlives_a_restart_and_is_taken_back_by_its_name_or_id() {
        let mesh = Mesh::new(3);
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().into());
        let open = || Serving::open(&home, PeerId([9; 32]), mesh.handle(), 1);
        let serving = open().unwrap();
        let (ticket, served) = serving.offer("anna").unwrap();
        assert_eq!((ticket.peer, served.name.as_str(), served.volumes), (PeerId([9; 32]), "anna", 0));
        assert!(serving.offer("\n").is_err());
        serving.offer("ben").unwrap();
        serving.offer("ben").unwrap();
        let again = open().unwrap();
        assert_eq!(again.list().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["anna", "ben", "ben"]);
        assert!(again.withdraw("ben").unwrap_err().message.contains("2 tickets"));
        assert!(again.withdraw("carl").unwrap_err().message.contains("no ticket"));
        let second = again.list()[1].id.clone();
        assert_eq!(again.withdraw(&second[..8]).unwrap().id, second);
        again.withdraw("anna").unwrap();
        assert_eq!(open().unwrap().list().len(), 1);
        // Nothing is looked after, and nothing goes wrong.
        again.tend(u64::MAX, 600);
        assert_eq!(again.list()[0].trouble, None);
        fs::write(home.custody_tickets(), b"what is this").unwrap();
        assert!(open().map(drop).unwrap_err().hint.is_some());
    }

    #[test]
    fn there_is_an_end_to_tickets() {
        let mesh = Mesh::new(3);
        let dir = tempfile::tempdir().unwrap();
        let serving = Serving::open(&Home::new(dir.path().into()), PeerId([9; 32]), mesh.handle(), 1).unwrap();
        for _ in 0..TICKETS_MAX {
            serving.offer("anna").unwrap();
        }
        assert!(serving.offer("anna").unwrap_err().message.contains("already"));
        let full = serving.tickets.lock().clone();
        let most = Given { name: "x".repeat(NAME_MAX), wards: vec![255; Wards::MAX], ..full.given[0].clone() };
        let all = Tickets { given: vec![most; TICKETS_MAX] };
        assert!(codec::decode::<Tickets>(&codec::encode(&all)).is_ok());
    }
}
