//! Which rows of each global batch one process feeds.

use std::ops::Range;

use crate::error::{Error, Result, Setting};

/// Which rows of each global batch one process feeds. It is checked against the size of the batch
/// where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostShard(ShardRows);

#[derive(Clone, Debug, PartialEq, Eq)]
enum ShardRows {
    All,
    Host { host: usize, hosts: usize },
    Ranges(Vec<Range<usize>>),
}

impl HostShard {
    /// Every row.
    pub fn all() -> HostShard {
        HostShard(ShardRows::All)
    }

    /// Part number `host`, counted from 0, of `hosts` equal ones.
    pub fn host(host: usize, hosts: usize) -> HostShard {
        HostShard(ShardRows::Host { host, hosts })
    }

    /// The rows of these ranges, which must ascend and not overlap.
    pub fn ranges(ranges: impl IntoIterator<Item = Range<usize>>) -> HostShard {
        HostShard(ShardRows::Ranges(ranges.into_iter().collect()))
    }

    /// The rows of a global batch of that size, as ascending ranges.
    pub(super) fn of(&self, global_batch: usize) -> Result<Vec<Range<usize>>> {
        match &self.0 {
            ShardRows::All => Ok(one(0..global_batch)),
            &ShardRows::Host { host, hosts } => {
                if !global_batch.is_multiple_of(hosts) {
                    let reason = format!(
                        "must be a multiple of the number of hosts, but is {global_batch} for {hosts} hosts"
                    );
                    return Err(Error::setting(Setting::GlobalBatch, reason));
                }
                if host >= hosts {
                    let reason =
                        format!("must be below the number of hosts ({hosts}), but is {host}");
                    return Err(Error::setting(Setting::Host, reason));
                }
                let rows = global_batch / hosts;
                Ok(one(host * rows..(host + 1) * rows))
            }
            ShardRows::Ranges(ranges) => {
                let mut end = 0;
                for range in ranges {
                    if range.is_empty() || range.start < end || range.end > global_batch {
                        let reason = format!(
                            "must ascend, not overlap and lie within the global batch of {global_batch}, but are {ranges:?}"
                        );
                        return Err(Error::setting(Setting::Rows, reason));
                    }
                    end = range.end;
                }
                match end {
                    0 => Err(Error::setting(Setting::Rows, "must not be empty")),
                    _ => Ok(ranges.clone()),
                }
            }
        }
    }
}

fn one(range: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(range).collect()
}
