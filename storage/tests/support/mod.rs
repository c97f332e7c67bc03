//! An S3 server on loopback, and a way to it on which requests fail.

// No test uses all of it.
#![allow(dead_code, unused_imports)]

pub mod faults;
pub mod python;
pub mod random;
pub mod server;

pub use faults::{Fault, Faults, Proxy};
pub use random::Random;
pub use server::S3;
