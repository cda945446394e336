//! Peers that break the protocols.

use hypernet_mesh::SendError;

use crate::peer::{NETWORK, Peer, QUIC, hello, serve};
use crate::rogue;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_claim_is_reported_and_the_mesh_goes_on() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let claim = [10u32.to_be_bytes(), u32::MAX.to_be_bytes()].concat();
    let rogue = rogue::Rogue::start(9, NETWORK, claim);
    let rogue_id = rogue.id();
    let attack = tokio::spawn(rogue.ask(server.mesh.listen_addrs()[0].clone()));
    let reason = server.fault_of(rogue_id).await;
    assert!(reason.contains("body") && reason.contains("at most"), "{reason}");
    attack.abort();

    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    client.connected_to(server.id()).await;
    let server_id = server.id();
    let serving = tokio::spawn(serve(server));
    assert!(client.ask(server_id, hello()).await.is_ok());
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_answer_is_the_outcome_of_the_send() {
    let mut rogue = rogue::Rogue::start(9, NETWORK, [4u32.to_be_bytes(), 0u32.to_be_bytes(), [0xff; 4]].concat());
    let (rogue_id, addr) = (rogue.id(), rogue.listen().await);
    let answering = tokio::spawn(rogue.answer());
    let mut client = Peer::start(2, NETWORK, QUIC, &[addr]).await;
    let error = client.ask(rogue_id, hello()).await.unwrap_err();
    assert!(matches!(&error, SendError::Malformed(reason) if reason.contains("tag")), "{error}");
    answering.abort();
}
