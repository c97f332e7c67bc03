//! What counts and hashes bytes.

pub(crate) use crate::input::Meter;
