//! Versions of objects in buckets, by which a cache knows that it is out of date.

use object_store::ObjectMeta;

/// What tells two contents of an object apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) size: u64,
    /// The entity tag; the time of the last change where there is none.
    pub(crate) tag: String,
}

impl Version {
    pub(crate) fn of(meta: &ObjectMeta) -> Version {
        Version {
            size: meta.size,
            tag: match &meta.e_tag {
                Some(tag) => tag.clone(),
                None => meta.last_modified.to_rfc3339(),
            },
        }
    }
}
