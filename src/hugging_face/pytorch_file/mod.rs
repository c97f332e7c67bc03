//! Files that `torch.save` writes of a state dict: `pytorch_model.bin`.
//!
//! Such a file is a zip archive (`archive`) with the elements of each storage, and a pickle that
//! says which tensors view them and how (`pickle`). PyTorch executes the pickle; this module reads
//! the little of it that a state dict needs, and refuses the rest. The format before PyTorch 1.6,
//! one pickle after another, is refused with what converts it.

mod archive;
mod pickle;
#[cfg(test)]
pub(super) mod write;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::error::{Error, Result};
use super::file_kind::Kind;
use super::tensors::{Elements, StoredTensor};
use archive::Member;
use pickle::View;

pub(super) use archive::Member as Storage;

/// More than the pickle of any state dict takes: a tensor is some 150 bytes of it.
const LARGEST_PICKLE: u64 = 16 << 20;

/// What every pickle of the protocols since 2 begins with.
const PICKLE: u8 = 0x80;

/// The tensors of the file at `path` by name, of which `start` is the beginning and `length` the
/// number of bytes. None of their elements is read yet.
pub(super) fn tensors(
    path: &Path,
    file: &File,
    start: &[u8],
    length: u64,
) -> Result<Vec<(String, StoredTensor)>> {
    let malformed = |problem: String| Error::Malformed {
        file: path.to_path_buf(),
        problem,
    };
    match Kind::of(start) {
        Some(Kind::PyTorch) if start[0] == PICKLE => {
            return Err(Error::OtherFormat {
                directory: path.parent().unwrap_or(path).to_path_buf(),
                found: "weights in the format before PyTorch 1.6",
                installed: "transformers and torch",
                hint: "",
            });
        }
        Some(Kind::PyTorch) => {}
        Some(kind) => {
            return Err(malformed(format!(
                "expected a file of `torch.save`, found {kind}"
            )));
        }
        None => return Err(malformed("not a file of `torch.save`".to_owned())),
    }
    let mut members = archive::members(path, file, length)?;
    if members.contains_key("constants.pkl") {
        return Err(malformed(
            "it holds a program of TorchScript, not a state dict".to_owned(),
        ));
    }
    if let Some(order) = members.get("byteorder") {
        let order = order.read(path, file, 0, order.length.min(8))?;
        if order != b"little" {
            return Err(malformed(
                "it was written on a machine of another byte order: save it again on this one"
                    .to_owned(),
            ));
        }
    }
    let pickle = members.remove("data.pkl").ok_or_else(|| {
        malformed("a zip archive without data.pkl, which `torch.save` writes".to_owned())
    })?;
    if pickle.length > LARGEST_PICKLE {
        return Err(malformed(format!(
            "its pickle has {} bytes, more than that of any state dict",
            pickle.length
        )));
    }
    let pickle = pickle.read(path, file, 0, pickle.length)?;
    let views = pickle::state_dict(&pickle).map_err(malformed)?;
    let mut storages: HashMap<&str, Arc<Member>> = HashMap::new();
    let mut tensors = Vec::with_capacity(views.len());
    for (name, view) in views {
        let storage = match storages.get(view.key) {
            Some(storage) => storage.clone(),
            None => {
                let member = members.remove(&format!("data/{}", view.key));
                let member = member.ok_or_else(|| {
                    malformed(format!(
                        "the storage of `{name}` is not in it: fetch it again"
                    ))
                })?;
                let member = Arc::new(member);
                storages.insert(view.key, member.clone());
                member
            }
        };
        let tensor = placed(view, storage)
            .map_err(|problem| malformed(format!("`{}` {problem}", name.escape_debug())))?;
        tensors.push((name.to_owned(), tensor));
    }
    Ok(tensors)
}

/// A view of a storage, if it lies in it.
fn placed(view: View<'_>, storage: Arc<Storage>) -> Result<StoredTensor, String> {
    let width = view.dtype.bitsize() as u64 / 8;
    if view.elements.checked_mul(width) != Some(storage.length) {
        return Err(format!(
            "is in a storage of {} bytes, which its pickle says has {} elements of {:?}",
            storage.length, view.elements, view.dtype
        ));
    }
    let outside = || {
        format!(
            "has the shape {:?} and the strides {:?} from element {} on, which do not lie in a \
             storage of {} elements",
            view.shape, view.strides, view.first, view.elements
        )
    };
    if view.shape.len() != view.strides.len() {
        return Err(outside());
    }
    // More elements than the storage has would need memory that the file does not account for.
    let count = view
        .shape
        .iter()
        .try_fold(1u64, |all, &n| all.checked_mul(n));
    let count = count.filter(|count| *count <= view.elements);
    let count = count.ok_or_else(outside)?;
    let last = || {
        let steps = view.shape.iter().zip(&view.strides);
        steps
            .map(|(size, stride)| (size - 1).checked_mul(*stride))
            .try_fold(view.first, |last, step| last.checked_add(step?))
    };
    if count > 0 && last().is_none_or(|last| last >= view.elements) {
        return Err(outside());
    }
    let small = |sizes: &[u64]| sizes.iter().map(|&size| size as usize).collect();
    Ok(StoredTensor {
        dtype: view.dtype,
        shape: small(&view.shape),
        elements: Elements::InStorage {
            storage,
            first: view.first,
            strides: view.strides,
        },
    })
}
