//! What two agents say to each other. Each leaves all that it has said so far in one record, so that nothing is missed
//! between two looks.

use hypernet_core::limits::RECORD_PAYLOAD_MAX;
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Messages of one side: no meeting takes more.
pub(crate) const MESSAGES_MAX: usize = 8;
/// Bytes that are vouched for in one message.
pub(crate) const VOUCHED_MAX: usize = 1024;
/// Longest name of a device or a person in them.
pub(crate) const NAME_MAX: usize = 64;

/// What two meet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Topic {
    /// A new device of an identity.
    #[n(0)]
    Device,
    /// Two people make sure of each other's identities.
    #[n(1)]
    Contact,
    /// A guardian hands over a share of somebody's words.
    #[n(2)]
    Share,
}

/// Why one side has ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Error)]
pub(crate) enum Reason {
    /// The person has.
    #[n(0)]
    #[error("it was broken off there")]
    Person,
    /// They saw something else.
    #[n(1)]
    #[error("what is shown there is NOT the same: somebody may be in between")]
    Different,
    /// It took too long.
    #[n(2)]
    #[error("it took too long there")]
    TooLong,
    /// What came was not as it must be.
    #[n(3)]
    #[error("what came there was not as it must be: somebody else may have the code")]
    Refused,
    /// The identity is not the one that is expected.
    #[n(4)]
    #[error("the identity is another one than is expected there")]
    Identity,
    /// Something failed.
    #[n(5)]
    #[error("something failed there")]
    Failed,
    /// The share is none that can be used.
    #[n(6)]
    #[error("the share is refused there: it was forged or damaged, or does not fit to the others")]
    Share,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Message {
    /// Whoever shows the code waits.
    #[n(0)]
    Request {
        /// For what.
        #[n(0)]
        topic: Topic,
        /// Random.
        #[cbor(n(1), with = "minicbor::bytes")]
        transaction: [u8; 16],
    },
    /// Whoever enters it is there.
    #[n(1)]
    Start {
        /// For what.
        #[n(0)]
        topic: Topic,
        /// As in the request.
        #[cbor(n(1), with = "minicbor::bytes")]
        transaction: [u8; 16],
        /// What the device is called.
        #[n(2)]
        name: String,
    },
    /// Hash of the key that comes when the other one is there.
    #[n(2)]
    Accept {
        /// Over the key and all that was said before.
        #[cbor(n(0), with = "minicbor::bytes")]
        commitment: [u8; 32],
    },
    /// An X25519 key of this meeting.
    #[n(3)]
    Key(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// What this side vouches for, once the person has compared.
    #[n(4)]
    Vouch {
        /// For what.
        #[cbor(n(0), with = "minicbor::bytes")]
        what: Vec<u8>,
        /// Under the key that both have.
        #[cbor(n(1), with = "minicbor::bytes")]
        mac: [u8; 32],
    },
    /// This side has all, and the other one may have it as well.
    #[n(5)]
    Done {
        /// What is left to be said.
        #[cbor(n(0), with = "minicbor::bytes")]
        what: Vec<u8>,
        /// Under the key that both have.
        #[cbor(n(1), with = "minicbor::bytes")]
        mac: [u8; 32],
    },
    /// It is over.
    #[n(6)]
    Cancel(#[n(0)] Reason),
}

/// All that one side has said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Said(#[n(0)] pub(crate) Vec<Message>);
hypernet_core::format!(Said, tag = 0x5a, version = 1, max = RECORD_PAYLOAD_MAX, name = "pairing messages");

#[cfg(test)]
mod tests {
    use hypernet_core::codec;

    use super::*;

    /// What `agent/golden/pairing-messages.hex` stands for.
    fn golden() -> Said {
        Said(vec![
            Message::Request { topic: Topic::Device, transaction: [1; 16] },
            Message::Start { topic: Topic::Contact, transaction: [1; 16], name: "laptop".into() },
            Message::Accept { commitment: [2; 32] },
            Message::Key([3; 32]),
            Message::Vouch { what: b"entry".to_vec(), mac: [4; 32] },
            Message::Done { what: vec![], mac: [5; 32] },
            Message::Cancel(Reason::Different),
        ])
    }

    /// What `agent/golden/pairing-share.hex` stands for.
    fn golden_of_a_share() -> Said {
        Said(vec![Message::Request { topic: Topic::Share, transaction: [1; 16] }, Message::Cancel(Reason::Share)])
    }

    #[test]
    fn they_are_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/pairing-messages.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Said>(&bytes).unwrap(), golden());
        let bytes = crate::golden::bytes(include_str!("../../golden/pairing-share.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden_of_a_share())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Said>(&bytes).unwrap(), golden_of_a_share());
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_a_panic() {
        crate::golden::mutations(&codec::encode(&golden()), |bytes| {
            if let Ok(said) = codec::decode::<Said>(bytes) {
                assert!(codec::decode::<Said>(&codec::encode(&said)).is_ok());
            }
        });
    }
}
