//! The part of the local socket for snapshots.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use hypernet_sdk::api::{self, path};
use tokio::sync::mpsc;

use super::{Agents, Answer, Refused, api_error, inside, line, lines};
use crate::agent::{Agent, blocking};

/// Changes that wait for whoever asks: what is in one may be long.
const HUNKS: usize = 4;

pub(super) fn router() -> Router<Arc<Agent>> {
    Router::new()
        .route(path::SNAP, post(post_snap))
        .route(path::SNAP_LOG, post(post_log))
        .route(path::SNAP_SHOW, post(post_show))
        .route(path::SNAP_VERIFY, post(post_verify))
        .route(path::SNAP_DIFF, post(post_diff))
        .route(path::SNAP_HUNKS, post(post_hunks))
        .route(path::SNAP_TAG, post(post_tag))
        .route(path::SNAP_PRUNE, post(post_prune))
}

async fn post_snap(State(agent): Agents, Json(request): Json<api::SnapRequest>) -> Answer<api::Snapped> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.snap(request.message)).await??))
}

async fn post_log(State(agent): Agents, Json(request): Json<api::LogRequest>) -> Answer<Vec<api::SnapshotInfo>> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.log(request.limit)).await??))
}

async fn post_show(State(agent): Agents, Json(request): Json<api::RevisionRequest>) -> Answer<api::Shown> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.show(&request.revision)).await??))
}

async fn post_verify(State(agent): Agents, Json(request): Json<api::RevisionRequest>) -> Answer<api::Verified> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.verify(&request.revision)).await??))
}

async fn post_diff(State(agent): Agents, Json(request): Json<api::DiffRequest>) -> Answer<Vec<api::ChangeInfo>> {
    let diff = move || agent.past(&inside(&agent, &request.path))?.diff(&request.from, request.to.as_deref());
    Ok(Json(blocking(diff).await??))
}

async fn post_hunks(State(agent): Agents, Json(request): Json<api::HunksRequest>) -> Result<Response, Refused> {
    agent.own()?;
    let (tell, events) = mpsc::channel(HUNKS);
    tokio::task::spawn_blocking(move || {
        // Whoever does not read any more needs no more of it.
        let mut say = |change| tell.blocking_send(line(&api::HunksEvent::Change(Box::new(change)))).is_ok();
        let event = match agent.past(&inside(&agent, &request.of.path)).and_then(|past| past.hunks(&request, &mut say))
        {
            Ok(()) => api::HunksEvent::Done,
            Err(failure) => api::HunksEvent::Error(api_error(&failure)),
        };
        let _ = tell.blocking_send(line(&event));
    });
    Ok(lines(events))
}

async fn post_tag(State(agent): Agents, Json(request): Json<api::TagRequest>) -> Answer<Vec<api::TagInfo>> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.tag(&request)).await??))
}

async fn post_prune(State(agent): Agents, Json(request): Json<api::PruneRequest>) -> Answer<api::Pruned> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path))?.prune(&request)).await??))
}
