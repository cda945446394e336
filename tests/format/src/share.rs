//! Goldens of what several identities have in common.

use hypernet_core::id::{DeviceTag, EntryId, FileId, IdentityId};
use hypernet_core::identity::log::Recipient;
use hypernet_core::identity::place::Address;
use hypernet_core::key::Secret;
use hypernet_core::share::epoch::{Epoch, Epochs};
use hypernet_core::share::members::{Accepted, Author, Change, Log, Member, Role};
use hypernet_core::share::offer::{Boxes, LinkNotice, Linked, Offer, Offers};
use hypernet_core::share::posting::{Met, Said, SealedFor, SharePosting};
use hypernet_core::time::Hlc;
use hypernet_core::tree::Dot;

use crate::values::{device, recovery, volume};
use crate::{Golden, framed};

const TIME: Hlc = Hlc { millis: 1_700_000_000_000, counter: 5 };

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch::new(number, Secret::new([0x6a; 32]))
}

fn member(byte: u8, role: Role) -> Member {
    Member::new(IdentityId([byte; 32]), Address { signer: [byte; 32], secret: [byte; 16] }, role)
}

/// Four changes: of two members one is left.
fn log() -> Log {
    let (author, key) = (Author { identity: recovery().id(), device: device().id() }, device().signing_key());
    let owner = Address { signer: [0x6b; 32], secret: [0x6c; 16] };
    let mut log = Log::begin(volume(), author, &key, owner, TIME, epoch(1).name());
    let head = Accepted { device: device().id(), sequence: 7, head: [0x6d; 32] };
    let dot = Dot { device: DeviceTag(0x6e), sequence: 3 };
    let changes = [
        (Change::Grant(vec![member(0x71, Role::Writer), member(0x72, Role::Admin)]), None),
        (Change::Remove(vec![IdentityId([0x71; 32])], vec![head], vec![dot]), Some(epoch(2).name())),
        (Change::Rotate, Some(epoch(3).name())),
    ];
    for (change, epoch) in changes {
        // The check below finds one that is missing.
        let _ = log.change(author, &key, TIME, change, epoch, &|_| true);
    }
    log
}

fn member_log() -> Golden {
    Golden {
        name: "member-log",
        tag: Some(0x60),
        format: "member log",
        bytes: log().encode(),
        check: Box::new(|golden| match Log::decode(golden, volume(), log().beginning()) {
            Ok(read) if read == log() && read.entries().count() == 4 => Ok(()),
            Ok(read) => Err(format!("it reads as {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

fn posting() -> Golden {
    let people = said().people;
    let posting = SharePosting::new(b"a sealed way".to_vec(), &log(), people.clone(), &epoch(3));
    let bytes = posting.map(|posting| hypernet_core::codec::encode(&posting)).unwrap_or_default();
    Golden {
        name: "share-posting",
        tag: Some(0x62),
        format: "share posting",
        bytes,
        check: Box::new(move |golden| {
            let posting = SharePosting::decode(golden).map_err(|error| error.to_string())?;
            let read = posting.members(&[epoch(3)], volume(), log().beginning());
            let sealed = SealedFor { epoch: epoch(3).name(), people: people.clone() };
            match read.map_err(|error| error.to_string())? == (log(), sealed) && posting.way == b"a sealed way" {
                true => Ok(()),
                false => Err("it reads as something else".into()),
            }
        }),
    }
}

fn said() -> Said {
    let people = vec![Met { identity: IdentityId([0x77; 32]), recipient: Recipient::X25519([0x78; 32]) }];
    Said { log: log().encode(), people }
}

fn offer() -> Offer {
    Offer {
        volume: volume(),
        begin: EntryId([0x73; 32]),
        root: FileId([0x74; 16]),
        name: "photos".into(),
        role: Role::Writer,
        secret: Secret::new([0x75; 32]),
        poster: [0x76; 32],
    }
}

pub(crate) fn all() -> Vec<Golden> {
    let linked = Linked { offer: offer(), epochs: vec![epoch(1), epoch(2)], until: Some(TIME.millis) };
    vec![
        member_log(),
        posting(),
        framed("said-of-a-volume", said()),
        framed("epochs", Epochs { epochs: vec![epoch(1), epoch(2)] }),
        framed("offers", Offers { offers: vec![offer()] }),
        framed("boxes", Boxes { boxes: vec![b"one".to_vec().into(), b"another".to_vec().into()] }),
        framed("link-notice-leads", LinkNotice::Leads(linked.into())),
        framed("link-notice-ended", LinkNotice::Ended),
    ]
}
