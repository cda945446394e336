//! The key exchange of QUIC, as whoever records the wire sees it: the first packets of a connection are readable with
//! what stands in them (RFC 9001, 5.2), so the group that was agreed on is, too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hypernet_mesh::Multiaddr;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};
use rustls::{Side, SupportedCipherSuite};
use tokio::net::UdpSocket;

use crate::peer::{NETWORK, Peer, QUIC};

/// In the lists of key exchanges that TLS has.
const X25519_MLKEM768: u16 = 0x11ec;
/// What the server sends in it: an ML-KEM-768 ciphertext and an X25519 key.
const SHARE: usize = 1088 + 32;
const KEY_SHARE: u16 = 51;
const SERVER_HELLO: u8 = 2;

/// Reads bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len);
        self.0 = rest;
        front
    }

    fn number(&mut self, len: usize) -> usize {
        self.take(len).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    /// QUIC's integers say their length in their first two bits.
    fn varint(&mut self) -> usize {
        let len = 1 << (self.0[0] >> 6);
        self.number(len) & ((1 << (8 * len - 2)) - 1)
    }

    /// Bytes after their length.
    fn list(&mut self, len: usize) -> &'a [u8] {
        let len = self.number(len);
        self.take(len)
    }
}

/// The connection id that the first packet of a client is addressed to: keys of both sides' first packets follow from it.
fn first_id(datagram: &[u8]) -> Vec<u8> {
    let mut reader = Reader(datagram);
    assert_eq!(reader.number(1) & 0xf0, 0xc0, "it begins with an Initial packet");
    assert_eq!(reader.number(4), 1, "of QUIC version 1");
    reader.list(1).to_vec()
}

/// What a side says of TLS in Initial packets, by where it stands in its stream.
fn crypto(datagram: &[u8], keys: &rustls::quic::DirectionalKeys, said: &mut BTreeMap<usize, Vec<u8>>) {
    let mut rest = datagram;
    while rest.first().is_some_and(|first| first & 0x80 != 0) {
        let mut reader = Reader(rest);
        let kind = reader.number(1) & 0x30;
        reader.take(4);
        reader.list(1);
        reader.list(1);
        if kind == 0 {
            let token = reader.varint();
            reader.take(token);
        }
        if kind == 0x30 {
            return;
        }
        let len = reader.varint();
        let header_len = rest.len() - reader.0.len();
        let mut packet = rest[..header_len + len].to_vec();
        rest = &rest[header_len + len..];
        if kind == 0 {
            let sample = packet[header_len + 4..][..keys.header.sample_len()].to_vec();
            let (first, others) = packet.split_at_mut(1);
            keys.header.decrypt_in_place(&sample, &mut first[0], &mut others[header_len - 1..][..4]).unwrap();
            let number_len = usize::from(first[0] & 3) + 1;
            let number = Reader(&others[header_len - 1..]).number(number_len) as u64;
            let (header, payload) = packet.split_at_mut(header_len + number_len);
            frames(keys.packet.decrypt_in_place(number, header, payload).unwrap(), said);
        }
    }
}

fn frames(payload: &[u8], said: &mut BTreeMap<usize, Vec<u8>>) {
    let mut reader = Reader(payload);
    while !reader.0.is_empty() {
        match reader.varint() {
            0 | 1 => {}
            2 => {
                let (_, _, ranges, _) = (reader.varint(), reader.varint(), reader.varint(), reader.varint());
                for _ in 0..2 * ranges {
                    reader.varint();
                }
            }
            6 => {
                let (at, len) = (reader.varint(), reader.varint());
                said.insert(at, reader.take(len).to_vec());
            }
            // Nothing else stands in Initial packets, but for a refusal.
            other => panic!("a frame of type {other}"),
        }
    }
}

/// The group that the server chose, and the bytes that it sent for it.
fn agreed(said: &BTreeMap<usize, Vec<u8>>) -> (u16, usize) {
    let mut stream = Vec::new();
    for (at, bytes) in said {
        assert!(*at <= stream.len(), "bytes are missing");
        stream.truncate(*at);
        stream.extend_from_slice(bytes);
    }
    let mut reader = Reader(&stream);
    assert_eq!(reader.number(1), usize::from(SERVER_HELLO));
    let mut reader = Reader(reader.list(3));
    reader.take(2 + 32);
    reader.list(1);
    reader.take(2 + 1);
    let mut reader = Reader(reader.list(2));
    while !reader.0.is_empty() {
        let (kind, body) = (reader.number(2) as u16, reader.list(2));
        if kind == KEY_SHARE {
            let mut body = Reader(body);
            return (body.number(2) as u16, body.list(2).len());
        }
    }
    panic!("no key was agreed on");
}

#[tokio::test]
async fn two_meshes_agree_on_keys_that_a_quantum_computer_does_not_find_in_a_recording() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let listens = server.mesh.listen_addrs()[0].to_string();
    let port: u16 = listens.split('/').nth(4).unwrap().parse().unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    // A wire that is tapped.
    let wire = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tapped: Multiaddr =
        listens.replace(&format!("/{port}/"), &format!("/{}/", wire.local_addr().unwrap().port())).parse().unwrap();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let recording = recorded.clone();
    let tap = tokio::spawn(async move {
        let (mut buffer, mut client) = (vec![0; 1 << 16], None);
        while let Ok((len, from)) = wire.recv_from(&mut buffer).await {
            let from_server = from == to;
            recording.lock().unwrap().push((from_server, buffer[..len].to_vec()));
            if !from_server {
                client = Some(from);
            }
            let next = if from_server { client } else { Some(to) };
            if let Some(next) = next {
                wire.send_to(&buffer[..len], next).await.unwrap();
            }
        }
    });
    let client = Peer::start(2, NETWORK, QUIC, &[tapped]).await;
    server.connected_to(client.id()).await;
    tap.abort();

    let recorded = recorded.lock().unwrap();
    let id = first_id(&recorded.iter().find(|(from_server, _)| !from_server).unwrap().1);
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256;
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), &id, Side::Client);
    let mut said = BTreeMap::new();
    for (_, datagram) in recorded.iter().filter(|(from_server, _)| *from_server) {
        crypto(datagram, &keys.remote, &mut said);
    }
    assert_eq!(agreed(&said), (X25519_MLKEM768, SHARE));
}
