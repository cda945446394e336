//! The part of the local socket for what people share.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use hypernet_sdk::api::{self, path};

use super::{Agents, Answer, find};
use crate::agent::{Agent, blocking};
use crate::failure::{Failure, Kind};

pub(super) fn router() -> Router<Arc<Agent>> {
    Router::new()
        .route(path::SHARES, get(get_shares))
        .route(path::SHARE, post(post_share))
        .route(path::SHARE_SHOW, post(post_share_show))
        .route(path::UNSHARE, post(post_unshare))
        .route(path::ATTACH, post(post_attach))
        .route(path::DETACH, post(post_detach))
}

async fn get_shares(State(agent): Agents) -> Answer<api::SharesInfo> {
    Ok(Json(blocking(move || agent.shares()).await??))
}

async fn post_share(State(agent): Agents, Json(request): Json<api::ShareRequest>) -> Answer<api::ShareInfo> {
    Ok(Json(blocking(move || agent.share(find(&agent, &request.path)?, &request)).await??))
}

async fn post_share_show(State(agent): Agents, Json(request): Json<api::ShareQuery>) -> Answer<api::ShareInfo> {
    Ok(Json(blocking(move || agent.share_at(find(&agent, &request.path)?)).await??))
}

async fn post_unshare(State(agent): Agents, Json(request): Json<api::UnshareRequest>) -> Answer<api::ShareInfo> {
    Ok(Json(blocking(move || agent.unshare(find(&agent, &request.path)?, &request)).await??))
}

async fn post_attach(State(agent): Agents, Json(request): Json<api::AttachRequest>) -> Answer<api::ShareInfo> {
    let attached = move || {
        let (parent, name) = match (request.path.parent(), request.path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => return Err(Failure::new(Kind::Usage, format!("{} is no place in the tree", request.path.display()))),
        };
        agent.attach(find(&agent, parent)?, name, &request.share)
    };
    Ok(Json(blocking(attached).await??))
}

async fn post_detach(State(agent): Agents, Json(request): Json<api::DetachRequest>) -> Answer<api::ShareInfo> {
    Ok(Json(blocking(move || agent.detach(find(&agent, &request.path)?, request.discard)).await??))
}
