//! Any course of what the processes of a run say, how their calls end, and how time passes.
//!
//! What holds: nothing panics, what the coordinator remembers is bounded, a call that is told the
//! end is told nothing else, and after the end nothing but `Over` is said.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|events: &[u8]| ankh_cluster::play(events));
