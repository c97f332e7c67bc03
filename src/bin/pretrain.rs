//! pretrain
fn main() {}
