//! The part of the local socket for snapshots, branches and conflicts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
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
        .route(path::BRANCHES, get(get_branches))
        .route(path::BRANCH, post(post_branch))
        .route(path::BRANCH_DROP, post(post_branch_drop))
        .route(path::SWITCH, post(post_switch))
        .route(path::MERGE, post(post_merge))
        .route(path::CONFLICTS, post(post_conflicts))
        .route(path::RESOLVE, post(post_resolve))
        .route(path::SNAP_POLICY, post(post_policy))
}

async fn post_snap(State(agent): Agents, Json(request): Json<api::SnapRequest>) -> Answer<api::Snapped> {
    let snap = move || agent.past(&inside(&agent, &request.path)?)?.snap(request.message, request.command);
    Ok(Json(blocking(snap).await??))
}

async fn post_log(State(agent): Agents, Json(request): Json<api::LogRequest>) -> Answer<Vec<api::SnapshotInfo>> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path)?)?.log(request.limit)).await??))
}

async fn post_show(State(agent): Agents, Json(request): Json<api::ShowRequest>) -> Answer<api::Shown> {
    let show = move || agent.past(&inside(&agent, &request.of.path)?)?.show(&request.of.revision, request.alone);
    Ok(Json(blocking(show).await??))
}

async fn post_verify(State(agent): Agents, Json(request): Json<api::RevisionRequest>) -> Answer<api::Verified> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path)?)?.verify(&request.revision)).await??))
}

async fn post_diff(State(agent): Agents, Json(request): Json<api::DiffRequest>) -> Answer<Vec<api::ChangeInfo>> {
    let diff = move || agent.past(&inside(&agent, &request.path)?)?.diff(&request.from, request.to.as_deref());
    Ok(Json(blocking(diff).await??))
}

async fn post_hunks(State(agent): Agents, Json(request): Json<api::HunksRequest>) -> Result<Response, Refused> {
    agent.own()?;
    let (tell, events) = mpsc::channel(HUNKS);
    tokio::task::spawn_blocking(move || {
        // Whoever does not read any more needs no more of it.
        let mut say = |change| tell.blocking_send(line(&api::HunksEvent::Change(Box::new(change)))).is_ok();
        let mut hunks = || agent.past(&inside(&agent, &request.of.path)?)?.hunks(&request, &mut say);
        let event = match hunks() {
            Ok(()) => api::HunksEvent::Done,
            Err(failure) => api::HunksEvent::Error(api_error(&failure)),
        };
        let _ = tell.blocking_send(line(&event));
    });
    Ok(lines(events))
}

async fn post_tag(State(agent): Agents, Json(request): Json<api::TagRequest>) -> Answer<Vec<api::TagInfo>> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path)?)?.tag(&request)).await??))
}

async fn post_prune(State(agent): Agents, Json(request): Json<api::PruneRequest>) -> Answer<api::Pruned> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path)?)?.prune(&request)).await??))
}

async fn get_branches(State(agent): Agents) -> Answer<Vec<api::BranchInfo>> {
    Ok(Json(blocking(move || agent.branches()).await??))
}

async fn post_branch(State(agent): Agents, Json(mut request): Json<api::BranchRequest>) -> Answer<api::BranchInfo> {
    let make = move || {
        request.path = inside(&agent, &request.path)?;
        agent.make_branch(&request)
    };
    Ok(Json(blocking(make).await??))
}

async fn post_branch_drop(
    State(agent): Agents,
    Json(request): Json<api::DropBranchRequest>,
) -> Answer<api::BranchInfo> {
    Ok(Json(blocking(move || agent.drop_branch(&request)).await??))
}

async fn post_merge(State(agent): Agents, Json(mut request): Json<api::MergeRequest>) -> Answer<api::MergedInfo> {
    let merge = move || {
        request.path = inside(&agent, &request.path)?;
        agent.merge(&request)
    };
    Ok(Json(blocking(merge).await??))
}

async fn post_conflicts(
    State(agent): Agents,
    Json(request): Json<api::ConflictsRequest>,
) -> Answer<Vec<api::ConflictInfo>> {
    Ok(Json(blocking(move || agent.past(&inside(&agent, &request.path)?)?.conflicts()).await??))
}

async fn post_resolve(State(agent): Agents, Json(request): Json<api::ResolveRequest>) -> Answer<api::Resolved> {
    let resolve = move || agent.past(&inside(&agent, &request.path)?)?.resolve_conflicts(&request);
    Ok(Json(blocking(resolve).await??))
}

async fn post_switch(State(agent): Agents, Json(request): Json<api::SwitchRequest>) -> Answer<api::Switched> {
    Ok(Json(blocking(move || agent.switch(&request.name)).await??))
}

async fn post_policy(State(agent): Agents, Json(mut request): Json<api::PolicyRequest>) -> Answer<api::PolicyState> {
    let policy = move || {
        request.path = inside(&agent, &request.path)?;
        agent.policy(&request)
    };
    Ok(Json(blocking(policy).await??))
}
