//! What a guardian and the one who recovers do when both have compared: the share of the words is sealed for a key that the
//! one who recovers has made for this meeting and vouched for, so that nobody reads it who has only the code.

use hypernet_core::codec;
use hypernet_core::identity::log::Recipient;
use hypernet_core::identity::share::Share;
use hypernet_core::key::Secret;
use zeroize::Zeroizing;

use super::message::Reason;
use super::{Meeting, PairingError, Person};
use crate::sealing;
use crate::volume::damaged;

/// The guardian's part, who has entered the code. Returns when the other side has taken the share.
pub(crate) fn give(meeting: &mut Meeting<'_>, person: &mut dyn Person, share: &Share) -> Result<(), PairingError> {
    let vouched = meeting.vouched(person)?;
    meeting.attempt(Reason::Failed, |meeting| {
        let to: Recipient = minicbor::decode(&vouched).map_err(damaged)?;
        let plain = Zeroizing::new(codec::encode(share));
        meeting.pairing.vouch(sealing::seal(&[to], &plain).map_err(damaged)?)?;
        Ok::<_, PairingError>(())
    })?;
    meeting.done(person)?;
    meeting.pairing.done(Vec::new())?;
    meeting.leave_last();
    Ok(())
}

/// The part of the one who recovers, who has shown the code: what the guardian has handed over. `key` is of this meeting.
/// It ends with [`taken`], or with what is wrong with the share.
pub(crate) fn receive(
    meeting: &mut Meeting<'_>,
    person: &mut dyn Person,
    key: &Secret,
) -> Result<Zeroizing<Vec<u8>>, PairingError> {
    meeting.attempt(Reason::Failed, |meeting| {
        let mut mine = Vec::new();
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(sealing::recipient(key).map_err(damaged)?, &mut mine);
        meeting.pairing.is_same()?;
        meeting.pairing.vouch(mine)?;
        Ok::<_, PairingError>(())
    })?;
    let sealed = meeting.vouched(person)?;
    meeting.attempt(Reason::Share, |_| sealing::open(key, &sealed).map_err(|error| damaged(error).into()))
}

/// The share is good: the guardian is told. Whether they hear of it makes no difference any more.
pub(crate) fn taken(meeting: &mut Meeting<'_>) -> Result<(), PairingError> {
    meeting.pairing.done(Vec::new())?;
    meeting.leave_last();
    Ok(())
}
