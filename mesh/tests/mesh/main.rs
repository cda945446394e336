//! Real meshes on loopback sockets. Whatever is waited for is an event; the time limit only turns a hang into a
//! failure.
#![allow(clippy::unwrap_used)]

mod bounds;
mod hostile;
mod lan;
mod lookup;
mod meeting;
mod moving;
mod nat;
mod net;
mod pace;
mod peer;
mod quantum;
mod records;
mod relay;
mod rogue;
mod sends;

#[global_allocator]
static ALLOCATOR: hypernet_fuzz_smoke::memory::Counting = hypernet_fuzz_smoke::memory::Counting;
