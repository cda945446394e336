//! The part of the local socket for people and devices that meet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use hypernet_sdk::api::{self, Empty, path};
use tokio::sync::mpsc;

use super::{Agents, Answer, EVENTS, Private, api_error, line, lines};
use crate::agent::people::Tell;
use crate::agent::{Agent, blocking};
use crate::failure::Failure;

pub(super) fn router() -> Router<Arc<Agent>> {
    Router::new()
        .route(path::ID, get(get_id))
        .route(path::CONTACTS, get(get_contacts))
        .route(path::CONTACTS_ADD, post(post_contacts_add))
        .route(path::CONTACTS_REMOVE, post(post_contacts_remove))
        .route(path::CONTACTS_VERIFY, post(post_contacts_verify))
        .route(path::DEVICES_ADD, post(post_devices_add))
        .route(path::DEVICES_JOIN, post(post_devices_join))
        .route(path::COMPARED, post(post_compared))
        .route(path::GUARDIANS, get(get_guardians))
        .route(path::GUARDIANS_SET, post(post_guardians_set))
        .route(path::GUARDIANS_CLEAR, post(post_guardians_clear))
        .route(path::GUARDIANS_HELP, post(post_guardians_help))
        .route(path::RECOVER_SHARES, get(get_shares))
        .route(path::RECOVER_GATHER, post(post_shares_gather))
        .route(path::RECOVER_WORDS, post(post_shares_words))
}

async fn get_id(State(agent): Agents) -> Answer<api::IdInfo> {
    Ok(Json(agent.id()?))
}

async fn get_contacts(State(agent): Agents) -> Answer<Vec<api::ContactInfo>> {
    Ok(Json(agent.list_contacts()?))
}

async fn post_contacts_add(
    State(agent): Agents,
    Json(request): Json<api::AddContactRequest>,
) -> Answer<api::ContactInfo> {
    Ok(Json(blocking(move || agent.add_contact(&request)).await??))
}

async fn post_contacts_remove(
    State(agent): Agents,
    Json(request): Json<api::ContactRequest>,
) -> Answer<api::ContactInfo> {
    Ok(Json(blocking(move || agent.remove_contact(&request)).await??))
}

async fn post_compared(State(agent): Agents, Json(request): Json<api::ComparedRequest>) -> Answer<Empty> {
    agent.pairings.compared(&request.words)?;
    Ok(Json(Empty {}))
}

async fn post_contacts_verify(State(agent): Agents, Json(request): Json<api::PairRequest>) -> Response {
    pair(agent, request, Agent::verify_contact)
}

async fn post_devices_add(State(agent): Agents, Json(request): Json<api::PairRequest>) -> Response {
    pair(agent, request, Agent::add_device)
}

async fn post_devices_join(State(agent): Agents, Json(request): Json<api::PairRequest>) -> Response {
    pair(agent, request, Agent::join_identity)
}

async fn get_guardians(State(agent): Agents) -> Answer<api::GuardiansList> {
    Ok(Json(blocking(move || agent.list_guardians()).await??))
}

async fn post_guardians_set(
    State(agent): Agents,
    Private(request): Private<api::SetGuardiansRequest>,
) -> Answer<api::GuardiansInfo> {
    Ok(Json(blocking(move || agent.set_guardians(&request)).await??))
}

async fn post_guardians_clear(State(agent): Agents) -> Answer<api::GuardiansCleared> {
    Ok(Json(blocking(move || agent.clear_guardians()).await??))
}

async fn post_guardians_help(State(agent): Agents, Json(request): Json<api::PairRequest>) -> Response {
    pair(agent, request, Agent::help_to_recover)
}

async fn get_shares(State(agent): Agents) -> Answer<api::Gathered> {
    Ok(Json(agent.gathered()?))
}

async fn post_shares_gather(State(agent): Agents, Json(request): Json<api::PairRequest>) -> Response {
    pair(agent, request, Agent::gather_share)
}

async fn post_shares_words(
    State(agent): Agents,
    Private(request): Private<api::SharedWordsRequest>,
) -> Answer<api::Words> {
    Ok(Json(blocking(move || agent.shared_words(&request)).await??))
}

/// A meeting, whose reader is the person: when they go away it is over.
fn pair(
    agent: Arc<Agent>,
    request: api::PairRequest,
    meet: impl FnOnce(&Agent, &api::PairRequest, Tell) -> Result<api::Paired, Failure> + Send + 'static,
) -> Response {
    let (tell, mut told) = mpsc::channel::<api::PairEvent>(EVENTS);
    let (give, events) = mpsc::channel(EVENTS);
    let last = tell.clone();
    tokio::task::spawn_blocking(move || {
        let event = match meet(&agent, &request, tell) {
            Ok(paired) => api::PairEvent::Done(paired),
            Err(failure) => api::PairEvent::Error(api_error(&failure)),
        };
        let _ = last.blocking_send(event);
    });
    tokio::spawn(async move {
        loop {
            tokio::select! {
                event = told.recv() => match event {
                    Some(event) => if give.send(line(&event)).await.is_err() { return },
                    None => return,
                },
                // What is told is dropped with this, and whoever tells it sees that.
                () = give.closed() => return,
            }
        }
    });
    lines(events)
}
