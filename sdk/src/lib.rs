//! Talking to a running agent: the types of its local API, and where it lives.

pub mod api;
pub mod home;
