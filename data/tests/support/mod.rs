//! An S3 server on loopback, and a way to it on which requests fail.

// No test uses all of it.
#![allow(dead_code)]

pub mod faults;
pub mod python;
pub mod server;

pub use faults::{Fault, Faults, Proxy};
pub use server::S3;
