//! ankh
