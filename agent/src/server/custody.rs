//! The part of the local socket for custodians.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use hypernet_sdk::api::{self, path};

use super::{Agents, Answer};
use crate::agent::{Agent, blocking};

pub(super) fn router() -> Router<Arc<Agent>> {
    Router::new()
        .route(path::CUSTODIANS, get(get_custodians))
        .route(path::CUSTODIANS_ADD, post(post_add))
        .route(path::CUSTODIANS_REMOVE, post(post_remove))
        .route(path::CUSTODIANS_OFFER, post(post_offer))
        .route(path::CUSTODIANS_WITHDRAW, post(post_withdraw))
}

async fn get_custodians(State(agent): Agents) -> Answer<api::Custodians> {
    Ok(Json(blocking(move || agent.list_custodians()).await?))
}

async fn post_add(State(agent): Agents, Json(request): Json<api::AddCustodianRequest>) -> Answer<api::CustodianInfo> {
    Ok(Json(blocking(move || agent.add_custodian(&request)).await??))
}

async fn post_remove(State(agent): Agents, Json(request): Json<api::CustodianRequest>) -> Answer<api::CustodianInfo> {
    Ok(Json(blocking(move || agent.remove_custodian(&request)).await??))
}

async fn post_offer(State(agent): Agents, Json(request): Json<api::OfferCustodyRequest>) -> Answer<api::CustodyOffer> {
    Ok(Json(blocking(move || agent.offer_custody(&request)).await??))
}

async fn post_withdraw(State(agent): Agents, Json(request): Json<api::CustodianRequest>) -> Answer<api::ServedTicket> {
    Ok(Json(blocking(move || agent.withdraw_custody(&request)).await??))
}
